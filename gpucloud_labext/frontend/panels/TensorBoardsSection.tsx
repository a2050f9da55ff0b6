/** "TensorBoards": those that run, and a line to open one of a log directory. */
import { launchIcon, stopIcon } from '@jupyterlab/ui-components';
import type { FormEvent, ReactElement } from 'react';
import { useId, useState } from 'react';

import type { TensorBoard, TensorBoardState } from '../api/types';
import { Button, ErrorLine, IconButton, Loaded, State } from '../components/basics';
import { useAction, useResource, useTrans } from '../components/hooks';
import { ago, bytes } from '../format';
import type { Model } from '../model';

const TONES: Record<TensorBoardState, State.Tone> = {
  starting: 'busy',
  running: 'good',
  failed: 'bad'
};

export function TensorBoardsSection(props: {
  model: Model;
  open: (logdir: string) => Promise<void>;
}): ReactElement {
  const trans = useTrans();
  const { model } = props;
  const state = useResource(model.tensorboards);
  const stopping = useAction(async (id: string) => {
    await model.api.stopTensorBoard(id);
    await model.tensorboards.refresh();
  });
  return (
    <>
      <OpenForm open={props.open} />
      {stopping.error && <ErrorLine error={stopping.error} onDismiss={stopping.clear} />}
      <Loaded resource={model.tensorboards} state={state}>
        {list =>
          list.length === 0 ? (
            <p className="gpucloud-Note">{trans.__('No TensorBoard is running.')}</p>
          ) : (
            <ul className="gpucloud-List" aria-label={trans.__('TensorBoards')}>
              {list.map(one => (
                <Row
                  key={one.id}
                  tensorboard={one}
                  open={() => void props.open(one.logdir)}
                  stop={() => void stopping.run(one.id)}
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

function OpenForm(props: { open: (logdir: string) => Promise<void> }): ReactElement {
  const trans = useTrans();
  const id = useId();
  const [logdir, setLogdir] = useState('');
  const opening = useAction(props.open);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const wanted = logdir.trim();
    if (wanted !== '') {
      void opening.run(wanted).then(good => good && setLogdir(''));
    }
  };
  return (
    <form className="gpucloud-LineForm" onSubmit={submit}>
      <label htmlFor={id}>{trans.__('Log directory')}</label>
      <div>
        <input
          id={id}
          className="jp-mod-styled"
          value={logdir}
          placeholder={trans.__('runs, or s3://bucket/runs')}
          spellCheck={false}
          autoComplete="off"
          onChange={event => setLogdir(event.target.value)}
        />
        <Button submit primary disabled={opening.busy || logdir.trim() === ''}>
          {trans.__('Open')}
        </Button>
      </div>
      {opening.error && <ErrorLine error={opening.error} onDismiss={opening.clear} />}
    </form>
  );
}

function Row(props: {
  tensorboard: TensorBoard;
  open: () => void;
  stop: () => void;
  busy: boolean;
}): ReactElement {
  const trans = useTrans();
  const { state, logdir, memory_bytes, last_used, reason, log } = props.tensorboard;
  const words: Record<TensorBoardState, string> = {
    starting: trans.__('starting'),
    running: trans.__('running'),
    failed: trans.__('failed')
  };
  return (
    <li>
      <div className="gpucloud-Row">
        <span className="gpucloud-Row-name" title={logdir}>
          {logdir}
        </span>
        <IconButton
          icon={launchIcon}
          label={trans.__('Open TensorBoard of %1', logdir)}
          onClick={props.open}
        />
        <IconButton
          icon={stopIcon}
          label={trans.__('Stop TensorBoard of %1', logdir)}
          disabled={props.busy}
          onClick={props.stop}
        />
      </div>
      <div className="gpucloud-Row-facts">
        <State tone={TONES[state]}>{words[state]}</State>
        {memory_bytes !== null && <span>{bytes(memory_bytes)}</span>}
        {last_used !== null && (
          <span>{trans.__('used %1', ago(trans, last_used, Date.now()))}</span>
        )}
      </div>
      {state === 'failed' && reason && <p>{reason}</p>}
      {state === 'failed' && log && log.length > 0 && (
        <pre className="gpucloud-Log">{log.join('\n')}</pre>
      )}
    </li>
  );
}
