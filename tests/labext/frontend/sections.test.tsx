import { act, cleanup, fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import type { ReactElement } from 'react';

import type { Status } from '../../../gpucloud_labext/frontend/api/types';
import { VisibleContext } from '../../../gpucloud_labext/frontend/components/hooks';
import { HISTORY, Model } from '../../../gpucloud_labext/frontend/model';
import { JobsSection } from '../../../gpucloud_labext/frontend/panels/JobsSection';
import { ServerSection } from '../../../gpucloud_labext/frontend/panels/ServerSection';
import { GpuMemory } from '../../../gpucloud_labext/frontend/panels/StatusItem';
import { TensorBoardsSection } from '../../../gpucloud_labext/frontend/panels/TensorBoardsSection';
import { TensorBoardView } from '../../../gpucloud_labext/frontend/panels/TensorBoardTab';
import { UsageSection } from '../../../gpucloud_labext/frontend/panels/UsageSection';
import { gpu, job, replica, status, tensorboard, usage } from './models';
import { refusal, Server, unreachable } from './server';

afterEach(cleanup);

function section(name: 'jobs' | 'server' | 'tensorboards' | 'usage', model: Model): ReactElement {
  const open = jest.fn(() => Promise.resolve());
  const actions = { showLogs: jest.fn(), openTensorBoard: open };
  return {
    server: <ServerSection model={model} />,
    tensorboards: <TensorBoardsSection model={model} open={open} />,
    jobs: <JobsSection model={model} actions={actions} proposed={null} propose={jest.fn()} />,
    usage: <UsageSection model={model} />
  }[name];
}

describe('this server', () => {
  const show = (told: Partial<Status>, devices = [gpu()], message: string | null = null): Model => {
    const server = new Server({ 'GET status': status(told), 'GET gpus': { message, devices } });
    const model = new Model(server.api);
    render(<ServerSection model={model} />);
    return model;
  };

  it('tells profile, time, cost and bucket', async () => {
    show({ team: 'vision', s3: { bucket: 'ada-data', endpoint: '' } });
    await screen.findByText('vision');
    expect(screen.getByText('2 h 5 min')).toBeTruthy();
    expect(screen.getByText('1.23 EUR')).toBeTruthy();
    expect(screen.getByText('(0.60 EUR per GPU-hour)')).toBeTruthy();
    expect(screen.getByText('ada-data')).toBeTruthy();
  });

  it('leaves out what nobody knows and says why', async () => {
    const service = 'This server was not started by gpucloud.';
    show({ cost_so_far: null, currency: null, price_per_gpu_hour: null, service }, []);
    await screen.findByText(service);
    expect(screen.queryByText('Cost so far')).toBeNull();
    expect(screen.queryByText('S3 bucket')).toBeNull();
  });

  it('shows each GPU with meters and processes', async () => {
    const processes = [{ pid: 42, memory_bytes: null, command: '<img src=x onerror=alert(1)>' }];
    show({}, [gpu({ processes }), gpu({ index: 1, uuid: 'GPU-1', utilization_percent: null })]);
    const first = within(await screen.findByRole('group', { name: 'GPU 0, A100' }));
    const memory = first.getByRole('meter', { name: 'Memory' });
    expect(memory.getAttribute('aria-valuenow')).toBe('25');
    expect(memory.getAttribute('aria-valuetext')).toBe('2 / 8 GiB');
    expect(first.getByText('1 process')).toBeTruthy();
    // text of users stays text
    expect(first.getByText('<img src=x onerror=alert(1)>')).toBeTruthy();
    expect(document.querySelector('img')).toBeNull();
    const second = within(screen.getByRole('group', { name: 'GPU 1, A100' }));
    expect(second.queryByRole('meter', { name: 'Utilisation' })).toBeNull();
  });

  it('shows a simulated GPU without numbers that nobody measured', async () => {
    const nothing = {
      memory_used_bytes: null,
      memory_total_bytes: null,
      utilization_percent: null
    };
    const simulated = { ...nothing, name: 'Simulated GPU', simulated: true };
    show({}, [gpu(simulated)], 'The GPUs of this cluster are simulated.');
    await screen.findByRole('group', { name: 'GPU 0, Simulated GPU' });
    expect(screen.getByText('The GPUs of this cluster are simulated.')).toBeTruthy();
    expect(screen.queryByRole('meter')).toBeNull();
  });

  it('says where there is no GPU', async () => {
    show({}, [], 'No GPU in this profile');
    await screen.findByText('No GPU in this profile');
  });

  it('draws the latest looks', async () => {
    const answers = Array.from({ length: HISTORY + 5 }, (_, at) => at);
    const devices = (): unknown => ({
      message: null,
      devices: [gpu({ utilization_percent: answers.shift() ?? 0 })]
    });
    const model = new Model(new Server({ 'GET gpus': devices, 'GET status': status() }).api);
    for (let look = 0; look < HISTORY + 4; look += 1) {
      await model.gpus.refresh();
    }
    render(<ServerSection model={model} />);
    const name = 'Utilisation lately: 64 % now, 64 % at most';
    const line = (await screen.findByRole('img', { name })).querySelector('polyline');
    expect(line?.getAttribute('points')?.split(' ')).toHaveLength(HISTORY);
  });
});

describe('any section', () => {
  it.each(['server', 'tensorboards', 'jobs', 'usage'] as const)(
    '%s shows one line for an error, and tries again',
    async name => {
      const server = new Server();
      const model = new Model(server.api);
      const month = model.month;
      const routes = {
        server: 'GET gpus',
        tensorboards: 'GET tensorboards',
        jobs: 'GET jobs',
        usage: `GET usage?group_by=day&month=${month}`
      };
      server.answers = { 'GET status': status(), [routes[name]]: unreachable };
      render(section(name, model));
      const alert = await screen.findByRole('alert');
      expect(alert.textContent).toContain('Your server does not answer');
      expect(screen.getAllByRole('alert')).toHaveLength(1);
      const answers = {
        server: { message: 'No GPU in this profile', devices: [] },
        tensorboards: { tensorboards: [] },
        jobs: { jobs: [] },
        usage: usage([])
      };
      server.answers = { 'GET status': status(), [routes[name]]: answers[name] };
      fireEvent.click(within(alert).getByRole('button', { name: 'Try again' }));
      const words = {
        server: /No GPU in this profile/,
        tensorboards: /No TensorBoard is running/,
        jobs: /No jobs yet/,
        usage: /GPU-hours/
      };
      await screen.findAllByText(words[name]);
      expect(screen.queryByRole('alert')).toBeNull();
    }
  );

  it('says plainly that there is no service, without an alarm', async () => {
    const answer = refusal(503, 'no_service', 'There is no service to ask.');
    const model = new Model(new Server({ 'GET jobs': answer }).api);
    render(section('jobs', model));
    await screen.findByText('There is no service to ask.');
    expect(screen.queryByRole('alert')).toBeNull();
    expect(screen.queryByRole('button')).toBeNull();
  });

  it('asks for nothing while it is hidden', async () => {
    const server = new Server({ 'GET jobs': { jobs: [job()] } });
    const model = new Model(server.api);
    const { rerender } = render(
      <VisibleContext.Provider value={false}>{section('jobs', model)}</VisibleContext.Provider>
    );
    expect(server.asked).toHaveLength(0);
    rerender(
      <VisibleContext.Provider value={true}>{section('jobs', model)}</VisibleContext.Provider>
    );
    await screen.findByText('mnist');
  });
});

describe('TensorBoards', () => {
  it('lists them with state and memory, and stops one', async () => {
    let list = [tensorboard(), tensorboard({ id: 'b', logdir: 's3://ada/b', state: 'starting' })];
    const server = new Server({
      'GET tensorboards': () => ({ tensorboards: list }),
      'DELETE tensorboards/a': () => {
        list = list.slice(1);
        return {};
      }
    });
    render(section('tensorboards', new Model(server.api)));
    await screen.findByText('runs/a');
    expect(screen.getAllByText('200 MiB')).toHaveLength(2);
    expect(screen.getByText('starting')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Stop TensorBoard of runs/a' }));
    await waitFor(() => expect(screen.queryByText('runs/a')).toBeNull());
    expect(server.count('DELETE tensorboards/a')).toBe(1);
    expect(screen.getByText('s3://ada/b')).toBeTruthy();
  });

  it('shows why one failed', async () => {
    const log = ['E1123 no such directory'];
    const failed = tensorboard({ state: 'failed', log });
    const server = new Server({ 'GET tensorboards': { tensorboards: [failed] } });
    render(section('tensorboards', new Model(server.api)));
    await screen.findByText('E1123 no such directory');
  });

  it('opens a log directory that was typed, and says what was wrong with it', async () => {
    const model = new Model(new Server({ 'GET tensorboards': { tensorboards: [] } }).api);
    const open = jest.fn(() => Promise.reject(new Error('It lies outside of your home.')));
    render(<TensorBoardsSection model={model} open={open} />);
    const input = screen.getByLabelText('Log directory');
    fireEvent.change(input, { target: { value: ' ../x ' } });
    fireEvent.submit(input);
    await screen.findByText('It lies outside of your home.');
    expect(open).toHaveBeenCalledWith('../x');
    expect((input as HTMLInputElement).value).toBe(' ../x ');
  });
});

describe('a tab with a TensorBoard', () => {
  it('waits until it runs and then shows it', async () => {
    const server = new Server({
      'POST tensorboards': tensorboard({ state: 'starting' }),
      'GET tensorboards/a': tensorboard(),
      'GET tensorboards': { tensorboards: [tensorboard()] }
    });
    const model = new Model(server.api);
    render(<TensorBoardView model={model} logdir="runs/a" />);
    expect(screen.getByRole('status').textContent).toContain('starting');
    const frame = await screen.findByTitle('TensorBoard of runs/a');
    expect(frame.getAttribute('src')).toContain('/user/ada/lab/gpucloud/tensorboard/a/');
    expect(server.count('POST tensorboards')).toBe(1);

    await act(() => model.tensorboards.refresh());
    expect(screen.getByTitle('TensorBoard of runs/a')).toBeTruthy();
    server.answers = { ...server.answers, 'GET tensorboards': { tensorboards: [] } };
    await act(() => model.tensorboards.refresh());
    expect(screen.getByRole('status').textContent).toContain('was stopped');
    fireEvent.click(screen.getByRole('button', { name: 'Start it again' }));
    await screen.findByTitle('TensorBoard of runs/a');
    expect(server.count('POST tensorboards')).toBe(2);
  });

  it('starts nothing while it is hidden', async () => {
    const server = new Server();
    const view = <TensorBoardView model={new Model(server.api)} logdir="runs/a" />;
    render(<VisibleContext.Provider value={false}>{view}</VisibleContext.Provider>);
    await act(async () => undefined);
    expect(server.asked).toHaveLength(0);
  });

  it('shows the log of one that failed, and tries again only when asked', async () => {
    const failed = tensorboard({ state: 'failed', log: ['no event files'] });
    const server = new Server({ 'POST tensorboards': failed });
    render(<TensorBoardView model={new Model(server.api)} logdir="runs/a" />);
    await screen.findByText('no event files');
    expect(server.count('POST tensorboards')).toBe(1);
    server.answers = { 'POST tensorboards': tensorboard() };
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    await screen.findByTitle('TensorBoard of runs/a');
  });

  it('shows a refusal in its words', async () => {
    const server = new Server({
      'POST tensorboards': refusal(400, 'bad_logdir', 'runs/a is not a folder.')
    });
    render(<TensorBoardView model={new Model(server.api)} logdir="runs/a" />);
    expect((await screen.findByRole('alert')).textContent).toContain('runs/a is not a folder.');
  });
});

describe('jobs', () => {
  const show = (...jobs: ReturnType<typeof job>[]): void => {
    render(section('jobs', new Model(new Server({ 'GET jobs': { jobs } }).api)));
  };

  it('tells state, replicas, cost and the way to logs of each', async () => {
    show(job());
    await screen.findByText('worker 1/2 · ps 1/1 running');
    expect(screen.getByText('0.50 EUR')).toBeTruthy();
    expect(screen.getByRole('button', { name: 'Logs of mnist' })).toBeTruthy();
    expect(screen.getByRole('button', { name: 'Stop mnist' })).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'TensorBoard of mnist' })).toBeNull();
  });

  it('says who failed and how, as text', async () => {
    const lines = ['ValueError: <b>no</b>'];
    const failure = { replica: 'worker-1', exit_code: 1, lines, hint: 'Look at its log.' };
    const ended = '2026-11-23T10:03:30Z';
    const replicas = [replica('worker-0', { state: 'succeeded' }), replica('worker-1')];
    show(job({ state: 'failed', ended, failure, replicas }));
    await screen.findByText('worker-1 ended with exit code 1. Look at its log.');
    expect(screen.getByText('took 2 min')).toBeTruthy();
    expect(screen.getByText('worker 1/2 succeeded')).toBeTruthy();
    expect(screen.getByText('ValueError: <b>no</b>')).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Stop mnist' })).toBeNull();
  });

  it('says why one waits', async () => {
    const reason = 'Waiting for 2 free GPUs';
    show(job({ state: 'queued', reason, started: null, cost: null, replicas: [] }));
    await screen.findByText(reason);
    expect(screen.getByText('queued')).toBeTruthy();
  });

  it('launches what the form says; a refusal keeps it open and filled', async () => {
    const server = new Server({
      'GET jobs': { jobs: [] },
      'POST jobs': refusal(400, 'bad_gpus', 'Allowed: 0 to 2.')
    });
    const propose = jest.fn();
    const actions = { showLogs: jest.fn(), openTensorBoard: jest.fn() };
    const model = new Model(server.api);
    render(<JobsSection model={model} actions={actions} proposed="train.py" propose={propose} />);
    const form = within(screen.getByRole('form', { name: 'New job' }));
    expect(document.activeElement).toBe(form.getByLabelText('Script'));
    const fill = (label: string, value: string): void => {
      fireEvent.change(form.getByLabelText(label), { target: { value } });
    };
    fill('Arguments', '--name "a');
    expect(form.getByLabelText('Arguments').getAttribute('aria-invalid')).toBe('true');
    expect(form.getByText('A quote is not closed.')).toBeTruthy();
    fill('Arguments', '--name "a b"');
    fill('Workers', '4');
    fill('Parameter servers', '2');
    fireEvent.click(form.getByRole('button', { name: 'Launch' }));
    expect((await form.findByRole('alert')).textContent).toContain('Allowed: 0 to 2.');
    expect(propose).not.toHaveBeenCalled();
    server.answers = { ...server.answers, 'POST jobs': job() };
    fireEvent.click(form.getByRole('button', { name: 'Launch' }));
    await waitFor(() => expect(propose).toHaveBeenCalledWith(null));
    const wish = { script: 'train.py', args: ['--name', 'a b'], workers: 4, ps: 2, gpus: 1 };
    expect(server.asked.filter(one => one.method === 'POST').map(one => one.body)).toEqual([
      wish,
      wish
    ]);
  });
});

describe('usage', () => {
  it('draws every day of the month and tells the highest', async () => {
    const server = new Server();
    const model = new Model(server.api);
    const { month } = model;
    const row = (day: string, hours: number): ReturnType<typeof usage>['rows'][number] => ({
      day: `${month}-${day}`,
      gpu_seconds: hours * 3600,
      storage_gib_seconds: 0,
      cost: String(10 - hours)
    });
    server.answers = {
      [`GET usage?group_by=day&month=${month}`]: usage([row('01', 1), row('03', 4)])
    };
    render(<UsageSection model={model} />);
    const name = `Usage by day, the highest 4.00 GPU-hours on ${month}-03`;
    const chart = await screen.findByRole('img', { name });
    const bars = [...chart.querySelectorAll('.gpucloud-bar')];
    expect(bars.length).toBeGreaterThanOrEqual(28);
    const heights = bars.map(bar => Number(bar.getAttribute('height')));
    expect(heights[0]).toBeCloseTo((heights[2] ?? 0) / 4);
    expect(heights.filter(height => height > 0)).toHaveLength(2);
    fireEvent.click(screen.getByRole('button', { name: '3.00 EUR' }));
    await screen.findByRole('img', { name: `Usage by day, the highest 9 EUR on ${month}-01` });
  });

  it('goes back a month, and not into the future', async () => {
    const server = new Server();
    const model = new Model(server.api);
    server.answers = { [`GET usage?group_by=day&month=${model.month}`]: usage([]) };
    render(<UsageSection model={model} />);
    await screen.findByRole('img', { name: 'Usage by day: none in this month' });
    const after = screen.getByRole('button', { name: 'The month after' });
    expect(after).toHaveProperty('disabled', true);
    // two clicks before the first is answered: what counts is the last
    const before = screen.getByRole('button', { name: 'The month before' });
    fireEvent.click(before);
    fireEvent.click(before);
    expect(model.monthsBack).toBe(-2);
    const row = { day: `${model.month}-02`, gpu_seconds: 3600, storage_gib_seconds: 0, cost: '1' };
    server.answers[`GET usage?group_by=day&month=${model.month}`] = usage([row]);
    await screen.findByRole('img', { name: new RegExp(`1.00 GPU-hours on ${row.day}`) });
    expect(after).toHaveProperty('disabled', false);
  });
});

describe('the item of the status bar', () => {
  it('adds up the memory of all GPUs', async () => {
    const devices = [gpu(), gpu({ uuid: 'GPU-1' })];
    const onClick = jest.fn();
    const model = new Model(new Server({ 'GET gpus': { message: null, devices } }).api);
    render(<GpuMemory model={model} onClick={onClick} />);
    fireEvent.click(await screen.findByRole('button', { name: 'GPU 4 / 16 GiB' }));
    expect(onClick).toHaveBeenCalled();
  });

  it('shows nothing where no GPU tells', async () => {
    const server = new Server({ 'GET gpus': { message: 'No GPU in this profile', devices: [] } });
    const model = new Model(server.api);
    const { container } = render(<GpuMemory model={model} onClick={jest.fn()} />);
    await act(() => model.gpus.refresh());
    expect(container.textContent).toBe('');
  });
});
