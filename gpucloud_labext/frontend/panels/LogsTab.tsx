/** A tab with what a job's replicas print, renewed while the job goes on and the tab is shown. */
import { listIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from 'react';

import type { Job } from '../api/types';
import { Loaded } from '../components/basics';
import { useResource, useTrans } from '../components/hooks';
import { VisibleWidget } from '../components/visible';
import { hasEnded, type Model } from '../model';
import { Resource } from '../resource';

/** The end of a log; all of it lies in the job's folder on S3. */
const LINES = 2000;
const SECONDS = 3;

export class LogsTab extends VisibleWidget {
  constructor(
    trans: TranslationBundle,
    private readonly model: Model,
    readonly job: Pick<Job, 'id' | 'name'>
  ) {
    super(trans);
    this.addClass('gpucloud-LogsTab');
    this.title.icon = listIcon;
    this.title.label = trans.__('Logs of %1', job.name);
    this.title.caption = trans.__('Logs of job %1', job.id);
    this.title.closable = true;
  }

  protected body(): ReactElement {
    return <LogsView model={this.model} id={this.job.id} />;
  }
}

interface Look {
  job: Job;
  text: string;
}

export function LogsView(props: { model: Model; id: string }): ReactElement {
  const trans = useTrans();
  const select = useId();
  const { model, id } = props;
  const [replica, setReplica] = useState<string | null>(null);
  const resource = useMemo(
    () => new Resource('logs', looker(model, id, replica), SECONDS),
    [model, id, replica]
  );
  useEffect(() => () => resource.dispose(), [resource]);
  const state = useResource(resource);
  const known = useRef<Look | null>(null);
  known.current = state.data ?? known.current;
  const names = known.current?.job.replicas.map(one => one.name) ?? [];
  return (
    <>
      <div className="gpucloud-LogsTab-head">
        <label htmlFor={select}>{trans.__('Replica')}</label>
        <select
          id={select}
          className="jp-mod-styled"
          value={replica ?? ''}
          onChange={event => setReplica(event.target.value || null)}
        >
          <option value="">{trans.__('all')}</option>
          {names.map(name => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
        <span className="gpucloud-muted">{trans.__('the last %1 lines', LINES)}</span>
      </div>
      <Loaded resource={resource} state={state}>
        {look => <Text text={look.text} />}
      </Loaded>
    </>
  );
}

/** Asks for the job and its log; once the job has ended and its log is here, for nothing more. */
function looker(model: Model, id: string, replica: string | null): () => Promise<Look> {
  let last: Look | null = null;
  return async () => {
    if (last === null || !hasEnded(last.job)) {
      // the job first: a log that was read after its end is whole
      const job = await model.api.job(id);
      last = { job, text: await model.api.jobLogs(id, replica, LINES) };
    }
    return last;
  };
}

/** Follows the end as long as the reader has not scrolled away from it. */
function Text(props: { text: string }): ReactElement {
  const trans = useTrans();
  const box = useRef<HTMLPreElement>(null);
  const follows = useRef(true);
  useLayoutEffect(() => {
    if (box.current && follows.current) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [props.text]);
  const onScroll = (): void => {
    const { current } = box;
    if (current) {
      follows.current = current.scrollHeight - current.scrollTop - current.clientHeight < 20;
    }
  };
  return (
    // a region that scrolls must be reachable by the keyboard
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <pre ref={box} className="gpucloud-Log" role="log" tabIndex={0} onScroll={onScroll}>
      {props.text === '' ? trans.__('Nothing was printed yet.') : props.text}
    </pre>
  );
}
