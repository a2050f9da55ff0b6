/** What gpucloud knows in this browser tab: one resource per question, shared by all views. */
import type { IDisposable } from '@lumino/disposable';

import type { Api } from './api/client';
import type { Gpus, Job, JobState, Status, TensorBoard, Usage } from './api/types';
import { month } from './format';
import { Resource } from './resource';

/** Points of a sparkline. */
export const HISTORY = 60;

const ENDED: readonly JobState[] = ['succeeded', 'failed', 'stopped'];

export function hasEnded(job: Job): boolean {
  return ENDED.includes(job.state);
}

export class Model implements IDisposable {
  readonly status: Resource<Status>;
  readonly gpus: Resource<Gpus>;
  readonly tensorboards: Resource<TensorBoard[]>;
  readonly jobs: Resource<Job[]>;
  readonly usage: Resource<Usage>;

  constructor(
    readonly api: Api,
    seconds = 5
  ) {
    this.status = new Resource('status', () => api.status(), seconds);
    this.gpus = new Resource('gpus', () => this.askGpus(), seconds);
    this.tensorboards = new Resource('tensorboards', () => api.tensorboards(), seconds);
    this.jobs = new Resource('jobs', () => api.jobs(), seconds);
    this.usage = new Resource('usage', () => api.usage(this.month), seconds);
    this.setInterval(seconds);
  }

  /** The month that the usage is of. */
  get month(): string {
    return month(new Date(), this.monthsBack);
  }

  /** 0 is this month, -1 the one before. */
  get monthsBack(): number {
    return this.back;
  }

  async showMonth(back: number): Promise<void> {
    this.back = Math.min(0, back);
    await this.usage.ask();
  }

  /** Percent of use of a GPU at the latest looks, oldest first. */
  history(uuid: string): readonly number[] {
    return this.histories.get(uuid) ?? [];
  }

  /** `seconds` is for what changes by itself all the time; a statement is asked for less often. */
  setInterval(seconds: number): void {
    for (const resource of [this.gpus, this.tensorboards, this.jobs]) {
      resource.setInterval(seconds);
    }
    this.status.setInterval(Math.max(15, seconds));
    this.usage.setInterval(Math.max(60, seconds));
  }

  get isDisposed(): boolean {
    return this.status.isDisposed;
  }

  dispose(): void {
    for (const resource of [this.status, this.gpus, this.tensorboards, this.jobs, this.usage]) {
      resource.dispose();
    }
  }

  private async askGpus(): Promise<Gpus> {
    const gpus = await this.api.gpus();
    const known = new Set(gpus.devices.map(device => device.uuid));
    for (const uuid of this.histories.keys()) {
      if (!known.has(uuid)) {
        this.histories.delete(uuid);
      }
    }
    for (const { uuid, utilization_percent } of gpus.devices) {
      if (utilization_percent !== null) {
        const before = this.histories.get(uuid) ?? [];
        this.histories.set(uuid, [...before, utilization_percent].slice(-HISTORY));
      }
    }
    return gpus;
  }

  private readonly histories = new Map<string, readonly number[]>();
  private back = 0;
}
