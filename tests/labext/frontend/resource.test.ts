import { ApiError } from '../../../gpucloud_labext/frontend/api/client';
import { Resource } from '../../../gpucloud_labext/frontend/resource';

beforeEach(() => {
  jest.useFakeTimers();
});

afterEach(() => {
  show(false);
  jest.useRealTimers();
});

/** The browser's tab goes to the background or comes back. */
function show(hidden: boolean): void {
  const value = hidden ? 'hidden' : 'visible';
  Object.defineProperty(document, 'visibilityState', { value, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}

function counter(): { resource: Resource<number>; asked: () => number } {
  let count = 0;
  const resource = new Resource('counter', () => Promise.resolve(++count), 5);
  return { resource, asked: () => count };
}

it('asks at once and then regularly, but only while somebody watches', async () => {
  const { resource, asked } = counter();
  await jest.advanceTimersByTimeAsync(60_000);
  expect(asked()).toBe(0);
  const first = resource.watch();
  const second = resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  expect(asked()).toBe(1);
  await jest.advanceTimersByTimeAsync(10_000);
  expect(asked()).toBe(3);
  first.dispose();
  first.dispose();
  await jest.advanceTimersByTimeAsync(5_000);
  expect(asked()).toBe(4);
  second.dispose();
  await jest.advanceTimersByTimeAsync(60_000);
  expect(asked()).toBe(4);
  resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  expect(asked()).toBe(5);
  resource.dispose();
});

it('rests while the tab of the browser is hidden', async () => {
  const { resource, asked } = counter();
  resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  show(true);
  await jest.advanceTimersByTimeAsync(100_000);
  const before = asked();
  expect(before).toBeLessThanOrEqual(2);
  await jest.advanceTimersByTimeAsync(100_000);
  expect(asked()).toBe(before);
  show(false);
  await jest.advanceTimersByTimeAsync(5_100);
  expect(asked()).toBeGreaterThan(before);
  resource.dispose();
});

it('follows a changed setting', async () => {
  const { resource, asked } = counter();
  resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  resource.setInterval(1);
  await jest.advanceTimersByTimeAsync(20_000);
  expect(asked()).toBeGreaterThan(14);
  resource.dispose();
});

it('keeps the last answer beside an error, asks less often, and recovers', async () => {
  let fails = false;
  let count = 0;
  const resource = new Resource(
    'failing',
    () => {
      count += 1;
      return fails ? Promise.reject(new ApiError(503, 'x', 'Not now.')) : Promise.resolve(count);
    },
    5
  );
  resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  fails = true;
  await jest.advanceTimersByTimeAsync(5_000);
  expect(resource.snapshot).toMatchObject({ data: 1, error: { message: 'Not now.' } });
  const before = count;
  await jest.advanceTimersByTimeAsync(120_000);
  expect(count - before).toBeLessThan(24);
  expect(count).toBeGreaterThan(before);
  fails = false;
  const tried = resource.refresh();
  await jest.advanceTimersByTimeAsync(100);
  await tried;
  expect(resource.error).toBeNull();
  const after = count;
  await jest.advanceTimersByTimeAsync(20_000);
  expect(count).toBe(after + 4);
  resource.dispose();
});

it('shows no answer that a later question has overtaken', async () => {
  const answers: ((value: string) => void)[] = [];
  const resource = new Resource('slow', () => new Promise<string>(give => answers.push(give)), 5);
  const first = resource.refresh();
  const second = resource.refresh();
  answers[1]?.('new');
  answers[0]?.('old');
  await Promise.all([first, second]);
  expect(resource.data).toBe('new');
});

it('forgets the answer to another question', async () => {
  let question = 'one';
  const resource = new Resource('asked', () => Promise.resolve(question), 5);
  resource.watch();
  await jest.advanceTimersByTimeAsync(100);
  question = 'two';
  void resource.ask();
  expect(resource.snapshot).toEqual({ data: null, error: null, loading: true });
  await jest.advanceTimersByTimeAsync(100);
  expect(resource.data).toBe('two');
  resource.dispose();
});

it('turns whatever is thrown into words', async () => {
  const resource = new Resource('odd', () => Promise.reject(new TypeError('odd')), 5);
  await resource.refresh();
  expect(resource.error).toMatchObject({ code: 'failed', message: 'odd' });
});
