import { ApiError } from '../../../gpucloud_labext/frontend/api/client';
import { job, tensorboard } from './models';
import { refusal, Server, unreachable } from './server';

async function failure(promise: Promise<unknown>): Promise<ApiError> {
  const reason: unknown = await promise.then(
    () => null,
    (error: unknown) => error
  );
  expect(reason).toBeInstanceOf(ApiError);
  return reason as ApiError;
}

it('asks below the base URL of the server', async () => {
  const server = new Server({ 'GET usage?group_by=day&month=2026-11': { rows: [] } });
  expect(await server.api.usage('2026-11')).toEqual({ rows: [] });
});

it('sends the _xsrf token with what changes something', async () => {
  document.cookie = '_xsrf=2|secret';
  const server = new Server({ 'POST tensorboards': tensorboard() });
  await server.api.startTensorBoard('runs/a');
  expect(server.asked).toEqual([
    { method: 'POST', path: 'tensorboards', body: { logdir: 'runs/a' }, xsrf: '2|secret' }
  ]);
});

it('keeps ids within their part of the path', async () => {
  const server = new Server();
  await failure(server.api.stopJob('../../api/shutdown?x'));
  expect(server.asked[0]?.path).toBe('jobs/..%2F..%2Fapi%2Fshutdown%3Fx');
});

it('asks for the log of one replica or of all', async () => {
  const server = new Server({
    'GET jobs/j1/logs?tail=5': 'all',
    'GET jobs/j1/logs?tail=5&replica=ps-0': 'one'
  });
  expect(await server.api.jobLogs('j1', null, 5)).toBe('all');
  expect(await server.api.jobLogs('j1', 'ps-0', 5)).toBe('one');
});

it('takes the words of the API for a refusal', async () => {
  const server = new Server({ 'POST jobs': refusal(400, 'bad_gpus', 'Allowed: 0 to 2.') });
  const wish = { script: 'a.py', args: [], workers: 1, ps: 0, gpus: 9 };
  const error = await failure(server.api.launchJob(wish));
  expect(error).toMatchObject({ status: 400, code: 'bad_gpus', message: 'Allowed: 0 to 2.' });
  expect(server.asked[0]?.body).toEqual(wish);
});

it.each<[string, unknown, string, string]>([
  ['nobody answers', unreachable, 'no_answer', 'does not answer'],
  ['the extension is not there', undefined, 'not_known', 'does not know'],
  ['the login is gone', () => new Response('', { status: 403 }), 'not_logged_in', 'Reload'],
  ['a proxy fails', () => new Response('<h1>502</h1>', { status: 502 }), 'refused', '502'],
  ['the answer is no JSON', '<html>', 'bad_answer', 'something else']
])('says in words that %s', async (_what, answer, code, words) => {
  const error = await failure(new Server({ 'GET jobs': answer }).api.jobs());
  expect(error.code).toBe(code);
  expect(error.message).toContain(words);
});

it('knows a server without the service from one that fails', async () => {
  const server = new Server({ 'GET jobs': refusal(503, 'no_service', 'No service here.') });
  expect((await failure(server.api.jobs())).isNoService).toBe(true);
  server.answers = { 'GET jobs': refusal(503, 'service_unavailable', 'Not now.') };
  expect((await failure(server.api.jobs())).isNoService).toBe(false);
});

it('opens addresses of this very server only', () => {
  const { api } = new Server();
  const here = 'http://127.0.0.1:8000/user/ada/lab/gpucloud/tensorboard/a/';
  expect(api.address('/user/ada/lab/gpucloud/tensorboard/a/')).toBe(here);
  expect(api.address('gpucloud/tensorboard/a/')).toBe(here);
  expect(api.jobLogsAddress(job().id)).toBe(
    'http://127.0.0.1:8000/user/ada/lab/gpucloud/api/jobs/j1/logs'
  );
  for (const elsewhere of [
    'http://evil.example/',
    '/user/bob/lab/',
    '//evil.example/x',
    'javascript:1'
  ]) {
    expect(() => api.address(elsewhere)).toThrow('elsewhere');
  }
});
