/** "Jobs": the user's distributed trainings and how they stand, and the way to a new one. */
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { listIcon, stopIcon } from '@jupyterlab/ui-components';
import type { ReactElement } from 'react';

import type { Job, JobState, JobWish } from '../api/types';
import { Button, ErrorLine, IconButton, Loaded, State } from '../components/basics';
import { useAction, useResource, useTrans } from '../components/hooks';
import { ago, duration, money } from '../format';
import { tensorboardIcon } from '../icons';
import { hasEnded, type Model } from '../model';
import { JobForm } from './JobForm';

const TONES: Record<JobState, State.Tone> = {
  queued: 'idle',
  starting: 'busy',
  running: 'good',
  succeeded: 'good',
  failed: 'bad',
  stopped: 'idle'
};

export interface JobsActions {
  showLogs: (job: Job) => void;
  openTensorBoard: (logdir: string) => Promise<void>;
}

export function JobsSection(props: {
  model: Model;
  actions: JobsActions;
  /** The script of the form; null while the form is closed. */
  proposed: string | null;
  propose: (script: string | null) => void;
}): ReactElement {
  const trans = useTrans();
  const { model, proposed, propose } = props;
  const state = useResource(model.jobs);
  const stopping = useAction(async (job: Job) => {
    await model.api.stopJob(job.id);
    await model.jobs.refresh();
  });
  const launch = async (wish: JobWish): Promise<void> => {
    await model.api.launchJob(wish);
    propose(null);
    await model.jobs.refresh();
  };
  const askAndStop = async (job: Job): Promise<void> => {
    const answer = await showDialog({
      title: trans.__('Stop job %1?', job.name),
      body: trans.__('Its processes end now. What it has saved stays.'),
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: trans.__('Stop') })]
    });
    if (answer.button.accept) {
      await stopping.run(job);
    }
  };
  const noService = state.data === null && state.error?.isNoService === true;
  return (
    <>
      {proposed !== null && (
        <JobForm
          key={proposed}
          script={proposed}
          gpus={model.status.data?.gpus ?? 1}
          launch={launch}
          close={() => propose(null)}
        />
      )}
      {proposed === null && !noService && (
        <Button primary onClick={() => propose('')}>
          {trans.__('Launch a job…')}
        </Button>
      )}
      {stopping.error && <ErrorLine error={stopping.error} onDismiss={stopping.clear} />}
      <Loaded resource={model.jobs} state={state}>
        {jobs =>
          jobs.length === 0 ? (
            <p className="gpucloud-Note">{trans.__('No jobs yet.')}</p>
          ) : (
            <ul className="gpucloud-List" aria-label={trans.__('Jobs')}>
              {jobs.map(job => (
                <Row
                  key={job.id}
                  job={job}
                  actions={props.actions}
                  stop={() => void askAndStop(job)}
                  busy={stopping.busy}
                />
              ))}
            </ul>
          )
        }
      </Loaded>
    </>
  );
}

function Row(props: {
  job: Job;
  actions: JobsActions;
  stop: () => void;
  busy: boolean;
}): ReactElement {
  const trans = useTrans();
  const { job, actions } = props;
  const { tensorboard } = job;
  return (
    <li>
      <div className="gpucloud-Row">
        <span className="gpucloud-Row-name" title={job.id}>
          {job.name}
        </span>
        <IconButton
          icon={listIcon}
          label={trans.__('Logs of %1', job.name)}
          onClick={() => actions.showLogs(job)}
        />
        {tensorboard && (
          <IconButton
            icon={tensorboardIcon}
            label={trans.__('TensorBoard of %1', job.name)}
            onClick={() => void actions.openTensorBoard(tensorboard)}
          />
        )}
        {!hasEnded(job) && (
          <IconButton
            icon={stopIcon}
            label={trans.__('Stop %1', job.name)}
            disabled={props.busy}
            onClick={props.stop}
          />
        )}
      </div>
      <div className="gpucloud-Row-facts">
        <JobStateWords state={job.state} />
        <span>{when(trans, job)}</span>
        {job.cost !== null && <span>{money(job.cost, job.currency)}</span>}
      </div>
      <Replicas job={job} />
      {job.reason && !job.failure && <p className="gpucloud-Note">{job.reason}</p>}
      <Failure job={job} />
    </li>
  );
}

function JobStateWords(props: { state: JobState }): ReactElement {
  const trans = useTrans();
  const words: Record<JobState, string> = {
    queued: trans.__('queued'),
    starting: trans.__('starting'),
    running: trans.__('running'),
    succeeded: trans.__('succeeded'),
    failed: trans.__('failed'),
    stopped: trans.__('stopped')
  };
  return <State tone={TONES[props.state]}>{words[props.state]}</State>;
}

function when(trans: ReturnType<typeof useTrans>, job: Job): string {
  if (job.started !== null && job.ended !== null) {
    const seconds = (Date.parse(job.ended) - Date.parse(job.started)) / 1000;
    return trans.__('took %1', duration(trans, seconds));
  }
  return job.started !== null
    ? trans.__('started %1', ago(trans, job.started, Date.now()))
    : trans.__('asked for %1', ago(trans, job.created, Date.now()));
}

/** `worker 3/4 · ps 1/1`: how many of each role run, or have done so. */
function Replicas(props: { job: Job }): ReactElement | null {
  const trans = useTrans();
  const { replicas } = props.job;
  if (replicas.length === 0) {
    return null;
  }
  const up = hasEnded(props.job) ? 'succeeded' : 'running';
  const roles = [...new Set(replicas.map(replica => replica.role))];
  const parts = roles.map(role => {
    const all = replicas.filter(replica => replica.role === role);
    const good = all.filter(replica => replica.state === up || replica.state === 'succeeded');
    return `${role} ${good.length}/${all.length}`;
  });
  const words = up === 'running' ? trans.__('running') : trans.__('succeeded');
  return (
    <p className="gpucloud-Replicas">
      {parts.join(' · ')} {words}
    </p>
  );
}

function Failure(props: { job: Job }): ReactElement | null {
  const trans = useTrans();
  const { failure, reason } = props.job;
  if (failure === null) {
    return null;
  }
  const which =
    failure.replica === null
      ? (reason ?? trans.__('It failed.'))
      : failure.exit_code === null
        ? trans.__('%1 failed.', failure.replica)
        : trans.__('%1 ended with exit code %2.', failure.replica, failure.exit_code);
  return (
    <div className="gpucloud-Failure">
      <p>
        {which} {failure.hint}
      </p>
      {failure.lines.length > 0 && (
        <details>
          <summary>{trans.__('Its last lines')}</summary>
          <pre className="gpucloud-Log">{failure.lines.join('\n')}</pre>
        </details>
      )}
    </div>
  );
}
