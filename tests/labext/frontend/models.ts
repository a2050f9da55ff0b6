/** Answers of the API to begin with; tests say only what matters to them. */
import type {
  Gpu,
  Job,
  Replica,
  Status,
  TensorBoard,
  Usage
} from '../../../gpucloud_labext/frontend/api/types';

export function status(more: Partial<Status> = {}): Status {
  return {
    user: 'ada',
    application: 'lab',
    team: '',
    profile: 'tensorflow',
    image: '',
    gpus: 1,
    started: '2026-11-23T10:00:00Z',
    uptime_seconds: 7500,
    cost_so_far: '1.23',
    currency: 'EUR',
    price_per_gpu_hour: '0.60',
    service: 'ok',
    s3: null,
    ...more
  };
}

export function gpu(more: Partial<Gpu> = {}): Gpu {
  return {
    index: 0,
    uuid: 'GPU-0',
    name: 'A100',
    memory_used_bytes: 2 * 1024 ** 3,
    memory_total_bytes: 8 * 1024 ** 3,
    utilization_percent: 40,
    processes: [],
    ...more
  };
}

export function tensorboard(more: Partial<TensorBoard> = {}): TensorBoard {
  return {
    id: 'a',
    logdir: 'runs/a',
    url: '/user/ada/lab/gpucloud/tensorboard/a/',
    state: 'running',
    started: null,
    last_used: null,
    memory_bytes: 200 * 1024 ** 2,
    ...more
  };
}

export function replica(name: string, more: Partial<Replica> = {}): Replica {
  const [role = '', index = '0'] = name.split('-');
  const rest = { state: 'running', reason: null, exit_code: null, gpus: 1 } as const;
  return { name, role, index: Number(index), ...rest, ...more };
}

export function job(more: Partial<Job> = {}): Job {
  return {
    id: 'j1',
    name: 'mnist',
    state: 'running',
    reason: null,
    created: '2026-11-23T10:00:00Z',
    started: '2026-11-23T10:01:00Z',
    ended: null,
    replicas: [replica('worker-0'), replica('worker-1', { state: 'pending' }), replica('ps-0')],
    failure: null,
    gpu_seconds: 60,
    cost: '0.50',
    currency: 'EUR',
    tensorboard: null,
    ...more
  };
}

export function usage(rows: Usage['rows'], cost = '3.00'): Usage {
  const gpu_seconds = rows.reduce((sum, row) => sum + row.gpu_seconds, 0);
  const total = { gpu_seconds, storage_gib_seconds: 0, cost };
  return { start: '', end: '', currency: 'EUR', rows, total };
}
