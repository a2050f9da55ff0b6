/** The JSON of `<base_url>/gpucloud/api/`, as far as the front end reads it. */

export interface Status {
  user: string;
  application: string;
  /** Empty where there is none; so are profile and image. */
  team: string;
  profile: string;
  image: string;
  gpus: number;
  /** RFC 3339. */
  started: string | null;
  uptime_seconds: number;
  cost_so_far: string | null;
  currency: string | null;
  price_per_gpu_hour: string | null;
  /** `ok`, or words on why the service cannot be asked. */
  service: string;
  s3: { bucket: string; endpoint: string } | null;
}

export interface GpuProcess {
  pid: number;
  memory_bytes: number | null;
  command: string;
}

export interface Gpu {
  index: number;
  uuid: string;
  name: string;
  /** null, here and below: nobody tells. */
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
  utilization_percent: number | null;
  processes: GpuProcess[];
  /** A GPU of the embedded cluster that is only pretended. */
  simulated?: boolean;
}

export interface Gpus {
  /** Words where there is no device to show. */
  message: string | null;
  devices: Gpu[];
}

export type TensorBoardState = 'starting' | 'running' | 'failed';

export interface TensorBoard {
  id: string;
  logdir: string;
  url: string;
  state: TensorBoardState;
  started: string | null;
  last_used: string | null;
  memory_bytes: number | null;
  /** Of one that failed: why, and its last lines. */
  reason?: string;
  log?: string[];
}

export type JobState = 'queued' | 'starting' | 'running' | 'succeeded' | 'failed' | 'stopped';

export interface Replica {
  name: string;
  role: string;
  index: number;
  state: 'pending' | 'running' | 'succeeded' | 'failed';
  reason: string | null;
  exit_code: number | null;
  gpus: number;
}

export interface JobFailure {
  replica: string | null;
  exit_code: number | null;
  lines: string[];
  hint: string | null;
}

export interface Job {
  id: string;
  name: string;
  state: JobState;
  reason: string | null;
  created: string;
  started: string | null;
  ended: string | null;
  replicas: Replica[];
  failure: JobFailure | null;
  gpu_seconds: number | null;
  cost: string | null;
  currency: string | null;
  /** `s3://…/` of its TensorBoard logs. */
  tensorboard: string | null;
}

/** What the form asks for. */
export interface JobWish {
  script: string;
  args: string[];
  workers: number;
  ps: number;
  gpus: number;
}

export interface UsageRow {
  /** YYYY-MM-DD */
  day: string;
  gpu_seconds: number;
  storage_gib_seconds: number;
  cost: string;
}

export interface Usage {
  start: string;
  end: string;
  currency: string;
  rows: UsageRow[];
  total?: { gpu_seconds: number; storage_gib_seconds: number; cost: string };
}

export interface S3 {
  endpoint: string;
  bucket: string;
  team_buckets?: Record<string, string>;
}
