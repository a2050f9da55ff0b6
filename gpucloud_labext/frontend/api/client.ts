/**
 * Requests to the server extension. Everything goes through ServerConnection, which knows the base
 * URL behind a hub and sends the `_xsrf` token. Every failure becomes an `ApiError` with words for
 * a person.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Gpus, Job, JobWish, S3, Status, TensorBoard, Usage } from './types';

/** A refusal or failure; `code` is the stable slug of the API, `status` is 0 where nobody answered. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string
  ) {
    super(message);
  }

  /** Is it the service beside the hub that is not there, rather than this request that is wrong? */
  get isNoService(): boolean {
    return this.code === 'no_service';
  }
}

export class Api {
  constructor(
    private readonly settings: ServerConnection.ISettings,
    private readonly trans: TranslationBundle
  ) {}

  status(): Promise<Status> {
    return this.json('status');
  }

  gpus(): Promise<Gpus> {
    return this.json('gpus');
  }

  /** Own usage by day; `month` is `YYYY-MM`. */
  usage(month: string): Promise<Usage> {
    return this.json(`usage?${new URLSearchParams({ group_by: 'day', month })}`);
  }

  s3(): Promise<S3> {
    return this.json('s3');
  }

  async tensorboards(): Promise<TensorBoard[]> {
    return (await this.json<{ tensorboards: TensorBoard[] }>('tensorboards')).tensorboards;
  }

  tensorboard(id: string): Promise<TensorBoard> {
    return this.json(`tensorboards/${encodeURIComponent(id)}`);
  }

  /** Starts one, or answers with the one that runs already. */
  startTensorBoard(logdir: string): Promise<TensorBoard> {
    return this.json('tensorboards', 'POST', { logdir });
  }

  async stopTensorBoard(id: string): Promise<void> {
    await this.text(`tensorboards/${encodeURIComponent(id)}`, 'DELETE');
  }

  async jobs(): Promise<Job[]> {
    return (await this.json<{ jobs: Job[] }>('jobs')).jobs;
  }

  job(id: string): Promise<Job> {
    return this.json(`jobs/${encodeURIComponent(id)}`);
  }

  launchJob(wish: JobWish): Promise<Job> {
    return this.json('jobs', 'POST', wish);
  }

  async stopJob(id: string): Promise<void> {
    await this.text(`jobs/${encodeURIComponent(id)}`, 'DELETE');
  }

  /** The last lines of a replica, or of all of them. */
  jobLogs(id: string, replica: string | null, lines: number): Promise<string> {
    const query = new URLSearchParams({ tail: String(lines) });
    if (replica !== null) {
      query.set('replica', replica);
    }
    return this.text(`jobs/${encodeURIComponent(id)}/logs?${query}`);
  }

  /** The address, in a browser, of something that the API names. Only of this very server. */
  address(url: string): string {
    const base = new URL(this.settings.baseUrl, window.location.href);
    const found = new URL(url, base);
    if (found.origin !== base.origin || !found.pathname.startsWith(base.pathname)) {
      throw new ApiError(0, 'bad_answer', this.trans.__('The server named an address elsewhere.'));
    }
    return found.href;
  }

  /** The address of a job's log as plain text. */
  jobLogsAddress(id: string): string {
    return this.address(`gpucloud/api/jobs/${encodeURIComponent(id)}/logs`);
  }

  private async json<T>(path: string, method = 'GET', body?: unknown): Promise<T> {
    const text = await this.text(path, method, body);
    try {
      return JSON.parse(text) as T;
    } catch {
      throw new ApiError(
        0,
        'bad_answer',
        this.trans.__('The server answered with something else.')
      );
    }
  }

  private async text(path: string, method = 'GET', body?: unknown): Promise<string> {
    const url = URLExt.join(this.settings.baseUrl, 'gpucloud/api', path);
    const request: RequestInit = { method };
    if (body !== undefined) {
      request.body = JSON.stringify(body);
    }
    let answer: Response;
    let text: string;
    try {
      answer = await ServerConnection.makeRequest(url, request, this.settings);
      text = await answer.text();
    } catch {
      const words = this.trans.__('Your server does not answer. It may be stopped or busy.');
      throw new ApiError(0, 'no_answer', words);
    }
    if (!answer.ok) {
      throw this.refusal(answer.status, text);
    }
    return text;
  }

  private refusal(status: number, text: string): ApiError {
    const told = toldError(text);
    if (told !== null) {
      return new ApiError(status, told.code, told.message);
    }
    if (status === 404) {
      const words = this.trans.__('This server does not know this part of gpucloud.');
      return new ApiError(status, 'not_known', words);
    }
    if (status === 401 || status === 403) {
      const words = this.trans.__('You are no longer logged in. Reload the page.');
      return new ApiError(status, 'not_logged_in', words);
    }
    return new ApiError(status, 'refused', this.trans.__('The server answered with %1.', status));
  }
}

/** The JSON of every error of gpucloud; null for an error page of a proxy or another server. */
function toldError(text: string): { code: string; message: string } | null {
  let body: { code?: unknown; message?: unknown } | null;
  try {
    body = JSON.parse(text) as typeof body;
  } catch {
    return null;
  }
  const code = body?.code;
  const message = body?.message;
  return typeof code === 'string' && typeof message === 'string' ? { code, message } : null;
}
