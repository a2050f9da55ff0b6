/**
 * Something on the server that is looked at again and again while somebody looks at it here: its
 * last answer, its last error, and a signal for both. No DOM.
 */
import { DisposableDelegate, type IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { Signal, type ISignal } from '@lumino/signaling';

import { ApiError } from './api/client';

export class Resource<T> implements IDisposable {
  /** `seconds` between two looks. Failures make it slower, up to ten times. */
  constructor(
    private readonly name: string,
    private readonly fetch: () => Promise<T>,
    private seconds: number
  ) {}

  /** The last good answer; kept while later ones fail. */
  get data(): T | null {
    return this.state.data;
  }

  /** Why the last look failed; null after a good one. */
  get error(): ApiError | null {
    return this.state.error;
  }

  /** For React: a new object whenever anything changed. */
  get snapshot(): Resource.State<T> {
    return this.state;
  }

  get changed(): ISignal<this, void> {
    return this.changedSignal;
  }

  get isDisposed(): boolean {
    return this.disposed;
  }

  /** Looks at once, and then regularly until the last watcher is disposed of. */
  watch(): IDisposable {
    this.watchers += 1;
    if (this.watchers === 1) {
      this.poll = this.makePoll();
      void this.refresh();
    }
    let gone = false;
    return new DisposableDelegate(() => {
      if (!gone) {
        gone = true;
        this.watchers -= 1;
        if (this.watchers === 0) {
          this.rest();
        }
      }
    });
  }

  setInterval(seconds: number): void {
    this.seconds = seconds;
    if (this.poll !== null) {
      this.poll.frequency = this.frequency();
    }
  }

  /** Looks now. Never rejects: the outcome is in `data` and `error`. */
  async refresh(): Promise<void> {
    if (this.poll === null) {
      await this.look().catch(() => undefined);
      return;
    }
    // Through the poll: its next turn is counted from now, and a success ends its slowing down. Not
    // by its own refresh(), which would take a request under way for as good as a new one.
    await this.poll.schedule({ interval: Poll.IMMEDIATE, phase: 'refreshed' });
    await this.poll?.tick.catch(() => undefined);
  }

  /** Another question from now on: what is known is no answer to it. */
  async ask(): Promise<void> {
    this.generation += 1;
    this.publish({ data: null, error: null, loading: true });
    await this.refresh();
  }

  dispose(): void {
    if (!this.disposed) {
      this.disposed = true;
      this.rest();
      Signal.clearData(this);
    }
  }

  private makePoll(): Poll {
    return new Poll({
      name: `gpucloud:${this.name}`,
      auto: false,
      factory: () => this.look(),
      frequency: this.frequency(),
      // of the browser's tab; what is hidden inside the page does not watch
      standby: 'when-hidden'
    });
  }

  private rest(): void {
    this.poll?.dispose();
    this.poll = null;
  }

  private frequency(): { interval: number; backoff: boolean; max: number } {
    return { interval: this.seconds * 1000, backoff: true, max: this.seconds * 10_000 };
  }

  /** One request; rejects so that the poll slows down. */
  private async look(): Promise<void> {
    const generation = ++this.generation;
    this.publish({ ...this.state, loading: true });
    try {
      const data = await this.fetch();
      if (generation === this.generation) {
        this.publish({ data, error: null, loading: false });
      }
    } catch (reason) {
      if (generation === this.generation) {
        this.publish({ ...this.state, error: asApiError(reason), loading: false });
      }
      throw reason;
    }
  }

  private publish(state: Resource.State<T>): void {
    if (!this.disposed) {
      this.state = state;
      this.changedSignal.emit();
    }
  }

  private readonly changedSignal = new Signal<this, void>(this);
  private state: Resource.State<T> = { data: null, error: null, loading: false };
  private poll: Poll | null = null;
  // an answer that was overtaken by a later question is not shown
  private generation = 0;
  private watchers = 0;
  private disposed = false;
}

export namespace Resource {
  export interface State<T> {
    readonly data: T | null;
    readonly error: ApiError | null;
    readonly loading: boolean;
  }
}

/** Whatever was thrown, as an error with words. */
export function asApiError(reason: unknown): ApiError {
  if (reason instanceof ApiError) {
    return reason;
  }
  return new ApiError(0, 'failed', reason instanceof Error ? reason.message : String(reason));
}
