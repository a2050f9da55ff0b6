/** What to launch: a script, how often, and on how many GPUs. The server has the last word. */
import type { FormEvent, ReactElement, ReactNode } from 'react';
import { useEffect, useId, useRef, useState } from 'react';

import type { JobWish } from '../api/types';
import { Button, ErrorLine } from '../components/basics';
import { useAction, useTrans } from '../components/hooks';
import { splitArguments } from '../paths';

export function JobForm(props: {
  script: string;
  /** To begin with. */
  gpus: number;
  launch: (wish: JobWish) => Promise<void>;
  close: () => void;
}): ReactElement {
  const trans = useTrans();
  const first = useRef<HTMLInputElement>(null);
  const [script, setScript] = useState(props.script);
  const [line, setLine] = useState('');
  const [workers, setWorkers] = useState(1);
  const [ps, setPs] = useState(0);
  const [gpus, setGpus] = useState(props.gpus);
  const launching = useAction(props.launch);
  const args = splitArguments(line);
  useEffect(() => first.current?.focus(), []);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (args !== null && script.trim() !== '') {
      void launching.run({ script: script.trim(), args, workers, ps, gpus });
    }
  };
  return (
    <form className="gpucloud-JobForm" aria-label={trans.__('New job')} onSubmit={submit}>
      <Field label={trans.__('Script')} hint={trans.__('relative to your home')}>
        {ids => (
          <input
            {...ids}
            ref={first}
            className="jp-mod-styled"
            required
            value={script}
            placeholder="train.py"
            spellCheck={false}
            autoComplete="off"
            onChange={event => setScript(event.target.value)}
          />
        )}
      </Field>
      <Field
        label={trans.__('Arguments')}
        problem={args === null ? trans.__('A quote is not closed.') : null}
      >
        {ids => (
          <input
            {...ids}
            className="jp-mod-styled"
            value={line}
            placeholder="--epochs 10"
            spellCheck={false}
            autoComplete="off"
            onChange={event => setLine(event.target.value)}
          />
        )}
      </Field>
      <div className="gpucloud-JobForm-numbers">
        <Count label={trans.__('Workers')} least={1} value={workers} set={setWorkers} />
        <Count label={trans.__('Parameter servers')} least={0} value={ps} set={setPs} />
        <Count label={trans.__('GPUs per worker')} least={0} value={gpus} set={setGpus} />
      </div>
      {launching.error && <ErrorLine error={launching.error} />}
      <div className="gpucloud-JobForm-buttons">
        <Button onClick={props.close}>{trans.__('Cancel')}</Button>
        <Button submit primary disabled={launching.busy || args === null}>
          {launching.busy ? trans.__('Launching…') : trans.__('Launch')}
        </Button>
      </div>
    </form>
  );
}

interface FieldIds {
  id: string;
  'aria-describedby'?: string;
  'aria-invalid'?: boolean;
}

function Field(props: {
  label: string;
  hint?: string;
  problem?: string | null;
  children: (ids: FieldIds) => ReactNode;
}): ReactElement {
  const id = useId();
  const words = props.problem ?? props.hint;
  const ids: FieldIds = { id };
  if (words) {
    ids['aria-describedby'] = `${id}-words`;
  }
  if (props.problem) {
    ids['aria-invalid'] = true;
  }
  return (
    <div className="gpucloud-Field">
      <label htmlFor={id}>{props.label}</label>
      {props.children(ids)}
      {words && (
        <span id={`${id}-words`} className={props.problem ? 'gpucloud-problem' : 'gpucloud-muted'}>
          {words}
        </span>
      )}
    </div>
  );
}

function Count(props: {
  label: string;
  least: number;
  value: number;
  set: (value: number) => void;
}): ReactElement {
  return (
    <Field label={props.label}>
      {ids => (
        <input
          {...ids}
          type="number"
          className="jp-mod-styled"
          required
          min={props.least}
          step={1}
          value={Number.isNaN(props.value) ? '' : props.value}
          onChange={event => props.set(event.target.valueAsNumber)}
        />
      )}
    </Field>
  );
}
