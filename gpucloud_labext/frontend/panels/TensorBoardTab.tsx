/** A tab with one TensorBoard: starts it when it is first looked at, and says how far it is. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';
import { useContext, useEffect, useState } from 'react';

import type { ApiError } from '../api/client';
import type { TensorBoard } from '../api/types';
import { Button, ErrorLine } from '../components/basics';
import { useTrans, VisibleContext } from '../components/hooks';
import { VisibleWidget } from '../components/visible';
import { tensorboardIcon } from '../icons';
import type { Model } from '../model';
import { shortName } from '../paths';
import { asApiError } from '../resource';

/** Between two looks at one that starts. */
const STARTING_MS = 500;

export class TensorBoardTab extends VisibleWidget {
  constructor(
    trans: TranslationBundle,
    private readonly model: Model,
    readonly logdir: string
  ) {
    super(trans);
    this.addClass('gpucloud-TensorBoardTab');
    this.title.icon = tensorboardIcon;
    this.title.label = shortName(logdir);
    this.title.caption = trans.__('TensorBoard of %1', logdir);
    this.title.closable = true;
  }

  protected body(): ReactElement {
    return <TensorBoardView model={this.model} logdir={this.logdir} />;
  }
}

export function TensorBoardView(props: { model: Model; logdir: string }): ReactElement {
  const visible = useContext(VisibleContext);
  const [ready, setReady] = useState<TensorBoard | null>(null);
  if (ready !== null) {
    return <Frame model={props.model} tensorboard={ready} again={() => setReady(null)} />;
  }
  // nothing is started for a tab that was restored behind others
  return visible ? <Starting {...props} onReady={setReady} /> : <div />;
}

function Starting(props: {
  model: Model;
  logdir: string;
  onReady: (tensorboard: TensorBoard) => void;
}): ReactElement {
  const trans = useTrans();
  const { model, logdir, onReady } = props;
  const [attempt, setAttempt] = useState(0);
  const [failed, setFailed] = useState<TensorBoard | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const asked = new AbortController();
    setFailed(null);
    setError(null);
    start(model, logdir, asked.signal).then(
      outcome => {
        if (outcome !== null) {
          void model.tensorboards.refresh();
          (outcome.state === 'failed' ? setFailed : onReady)(outcome);
        }
      },
      (reason: unknown) => asked.signal.aborted || setError(asApiError(reason))
    );
    return () => asked.abort();
  }, [model, logdir, attempt, onReady]);
  const again = (): void => setAttempt(attempt + 1);
  return (
    <div className="gpucloud-Waiting">
      {error && <ErrorLine error={error} onRetry={again} />}
      {failed && (
        <>
          <p role="alert">
            {trans.__('TensorBoard of %1 did not start.', logdir)} {failed.reason}
          </p>
          {failed.log && <pre className="gpucloud-Log">{failed.log.join('\n')}</pre>}
          <Button onClick={again}>{trans.__('Try again')}</Button>
        </>
      )}
      {!error && !failed && (
        <p role="status">{trans.__('TensorBoard of %1 is starting…', logdir)}</p>
      )}
    </div>
  );
}

/** Starts one, or finds the one that runs; null where nobody wants to know any more. */
async function start(
  model: Model,
  logdir: string,
  signal: AbortSignal
): Promise<TensorBoard | null> {
  let found = await model.api.startTensorBoard(logdir);
  while (found.state === 'starting' && !signal.aborted) {
    await new Promise(resolve => setTimeout(resolve, STARTING_MS));
    if (!signal.aborted) {
      found = await model.api.tensorboard(found.id);
    }
  }
  return signal.aborted ? null : found;
}

/** TensorBoard's own page; a way back when it was stopped elsewhere. */
function Frame(props: { model: Model; tensorboard: TensorBoard; again: () => void }): ReactElement {
  const trans = useTrans();
  const { model, tensorboard } = props;
  const [stopped, setStopped] = useState(false);
  useEffect(() => {
    // only listens to what others ask for: an open tab asks for nothing
    let listed = false;
    const look = (): void => {
      const there = (model.tensorboards.data ?? []).some(one => one.id === tensorboard.id);
      // a list from before it started does not have it either
      setStopped(listed && !there);
      listed ||= there;
    };
    model.tensorboards.changed.connect(look);
    return () => {
      model.tensorboards.changed.disconnect(look);
    };
  }, [model, tensorboard.id]);
  if (stopped) {
    return (
      <div className="gpucloud-Waiting">
        <p role="status">{trans.__('TensorBoard of %1 was stopped.', tensorboard.logdir)}</p>
        <Button primary onClick={props.again}>
          {trans.__('Start it again')}
        </Button>
      </div>
    );
  }
  return (
    <iframe
      title={trans.__('TensorBoard of %1', tensorboard.logdir)}
      src={model.api.address(tensorboard.url)}
      sandbox="allow-same-origin allow-scripts allow-forms allow-popups allow-downloads allow-modals"
    />
  );
}
