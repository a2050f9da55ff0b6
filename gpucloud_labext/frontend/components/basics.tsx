/** The small parts: a collapsible section, buttons, the line of an error, a state, a waiting. */
import { caretDownIcon, caretRightIcon, type LabIcon } from '@jupyterlab/ui-components';
import type { ReactElement, ReactNode } from 'react';
import { useId } from 'react';

import type { ApiError } from '../api/client';
import type { Resource } from '../resource';
import { useTrans } from './hooks';

export function Section(props: {
  title: string;
  open: boolean;
  onToggle: () => void;
  name: string;
  children: ReactNode;
}): ReactElement {
  const id = useId();
  const Caret = props.open ? caretDownIcon : caretRightIcon;
  return (
    <section className="gpucloud-Section" aria-labelledby={`${id}-title`}>
      <h2 className="gpucloud-Section-heading">
        <button
          type="button"
          id={`${id}-title`}
          className="gpucloud-Section-title"
          data-section={props.name}
          aria-expanded={props.open}
          aria-controls={`${id}-body`}
          onClick={props.onToggle}
        >
          <Caret.react tag="span" aria-hidden="true" />
          {props.title}
        </button>
      </h2>
      <div id={`${id}-body`} className="gpucloud-Section-body" hidden={!props.open}>
        {props.open && props.children}
      </div>
    </section>
  );
}

/** A button that is an icon; its label is read aloud and shown as a tooltip. */
export function IconButton(props: {
  icon: LabIcon;
  label: string;
  disabled?: boolean;
  onClick: () => void;
}): ReactElement {
  return (
    <button
      type="button"
      className="gpucloud-IconButton"
      aria-label={props.label}
      title={props.label}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      <props.icon.react tag="span" aria-hidden="true" />
    </button>
  );
}

export function Button(props: {
  children: ReactNode;
  primary?: boolean;
  submit?: boolean;
  disabled?: boolean;
  onClick?: () => void;
}): ReactElement {
  return (
    <button
      type={props.submit ? 'submit' : 'button'}
      className={`jp-mod-styled gpucloud-Button ${props.primary ? 'jp-mod-accept' : 'jp-mod-reject'}`}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      {props.children}
    </button>
  );
}

/** One clear line for a failure, and a way on. */
export function ErrorLine(props: {
  error: ApiError;
  onRetry?: () => void;
  onDismiss?: () => void;
}): ReactElement {
  const trans = useTrans();
  return (
    <div className="gpucloud-ErrorLine" role="alert">
      <span>{props.error.message}</span>
      {props.onRetry && <Button onClick={props.onRetry}>{trans.__('Try again')}</Button>}
      {props.onDismiss && <Button onClick={props.onDismiss}>{trans.__('Dismiss')}</Button>}
    </div>
  );
}

/** What is known of a resource: its data, with a line above while it cannot be renewed. */
export function Loaded<T>(props: {
  resource: Resource<T>;
  state: Resource.State<T>;
  children: (data: T) => ReactNode;
}): ReactElement {
  const trans = useTrans();
  const { data, error } = props.state;
  if (error?.isNoService && data === null) {
    // not a failure but how this server was started: nothing to try again
    return <p className="gpucloud-Note">{error.message}</p>;
  }
  return (
    <>
      {error && <ErrorLine error={error} onRetry={() => void props.resource.refresh()} />}
      {data !== null && props.children(data)}
      {data === null && !error && <p className="gpucloud-Note">{trans.__('Loading…')}</p>}
    </>
  );
}

/** A state in words; the colour only repeats it. */
export function State(props: { tone: State.Tone; children: ReactNode }): ReactElement {
  return (
    <span className="gpucloud-State" data-tone={props.tone}>
      {props.children}
    </span>
  );
}

export namespace State {
  export type Tone = 'good' | 'busy' | 'bad' | 'idle';
}
