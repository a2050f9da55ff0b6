/** A Jupyter server as seen from the browser: answers where the network would be. */
import { ServerConnection } from '@jupyterlab/services';
import { nullTranslator } from '@jupyterlab/translation';

import { Api } from '../../../gpucloud_labext/frontend/api/client';

export const BASE = 'http://127.0.0.1:8000/user/ada/lab/';
export const trans = nullTranslator.load('gpucloud');

export interface Asked {
  method: string;
  path: string;
  body: unknown;
  xsrf: string | null;
}

type Answer = unknown | (() => unknown);

/** `answers` by `METHOD path`; a function is asked each time, a Response is given as it is. */
export class Server {
  constructor(public answers: Record<string, Answer> = {}) {}

  readonly asked: Asked[] = [];

  get api(): Api {
    const settings = ServerConnection.makeSettings({
      baseUrl: BASE,
      fetch: request => this.fetch(request as Request)
    });
    return new Api(settings, trans);
  }

  /** How often something was asked for. */
  count(route: string): number {
    return this.asked.filter(({ method, path }) => `${method} ${path}` === route).length;
  }

  private async fetch(request: Request): Promise<Response> {
    // without the time that JupyterLab adds against caches
    const path = request.url.replace(`${BASE}gpucloud/api/`, '').replace(/[?&]\d{13}$/, '');
    const text = await request.text();
    this.asked.push({
      method: request.method,
      path,
      body: text === '' ? null : JSON.parse(text),
      xsrf: request.headers.get('X-XSRFToken')
    });
    const known = this.answers[`${request.method} ${path}`];
    const answer = typeof known === 'function' ? await known() : known;
    if (answer instanceof Response) {
      return answer;
    }
    if (answer === undefined) {
      return new Response('<h1>404</h1>', { status: 404 });
    }
    return new Response(typeof answer === 'string' ? answer : JSON.stringify(answer));
  }
}

export function refusal(status: number, code: string, message: string): () => Response {
  return () => new Response(JSON.stringify({ code, message, details: {} }), { status });
}

export function unreachable(): never {
  throw new TypeError('Failed to fetch');
}
