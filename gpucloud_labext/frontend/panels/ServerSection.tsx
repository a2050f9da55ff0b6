/** "This server": what was granted, what it costs, and what its GPUs do right now. */
import { Clipboard } from '@jupyterlab/apputils';
import { copyIcon } from '@jupyterlab/ui-components';
import type { ReactElement, ReactNode } from 'react';

import type { Gpu, Gpus, Status } from '../api/types';
import { IconButton, Loaded } from '../components/basics';
import { Meter, Sparkline } from '../components/charts';
import { useResource, useTrans } from '../components/hooks';
import { bytes, bytesOf, duration, money } from '../format';
import { HISTORY, type Model } from '../model';

export function ServerSection(props: { model: Model }): ReactElement {
  const { model } = props;
  const status = useResource(model.status);
  const gpus = useResource(model.gpus);
  return (
    <>
      <Loaded resource={model.status} state={status}>
        {data => <Facts status={data} />}
      </Loaded>
      <Loaded resource={model.gpus} state={gpus}>
        {data => <Devices gpus={data} model={model} />}
      </Loaded>
    </>
  );
}

function Facts(props: { status: Status }): ReactElement {
  const trans = useTrans();
  const { status } = props;
  const price = status.price_per_gpu_hour;
  return (
    <>
      <dl className="gpucloud-Facts">
        <Fact name={trans.__('Profile')}>{status.profile || '–'}</Fact>
        {status.team && <Fact name={trans.__('Team')}>{status.team}</Fact>}
        {status.started && (
          <Fact name={trans.__('Running for')}>{duration(trans, status.uptime_seconds)}</Fact>
        )}
        {status.cost_so_far !== null && (
          <Fact name={trans.__('Cost so far')}>
            {money(status.cost_so_far, status.currency)}
            {price !== null && (
              <span className="gpucloud-muted">
                {' '}
                {trans.__('(%1 per GPU-hour)', money(price, status.currency))}
              </span>
            )}
          </Fact>
        )}
        {status.s3 && (
          <Fact name={trans.__('S3 bucket')}>
            <code>{status.s3.bucket}</code>
            <IconButton
              icon={copyIcon}
              label={trans.__('Copy the address of the bucket')}
              onClick={() => Clipboard.copyToSystem(`s3://${status.s3?.bucket}`)}
            />
          </Fact>
        )}
      </dl>
      {status.service !== 'ok' && <p className="gpucloud-Note">{status.service}</p>}
    </>
  );
}

function Fact(props: { name: string; children: ReactNode }): ReactElement {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Devices(props: { gpus: Gpus; model: Model }): ReactElement {
  const { message, devices } = props.gpus;
  if (devices.length === 0) {
    return <p className="gpucloud-Note">{message}</p>;
  }
  return (
    <>
      {message && <p className="gpucloud-Note">{message}</p>}
      {devices.map(gpu => (
        <Device key={gpu.uuid} gpu={gpu} history={props.model.history(gpu.uuid)} />
      ))}
    </>
  );
}

function Device(props: { gpu: Gpu; history: readonly number[] }): ReactElement {
  const trans = useTrans();
  const { gpu, history } = props;
  const percent = gpu.utilization_percent;
  const title = trans.__('GPU %1', gpu.index);
  const peak = Math.round(Math.max(0, ...history));
  return (
    <div className="gpucloud-Card" role="group" aria-label={`${title}, ${gpu.name}`}>
      <h3>
        {title} <span className="gpucloud-muted">{gpu.name}</span>
      </h3>
      {gpu.memory_used_bytes !== null && gpu.memory_total_bytes !== null && (
        <Meter
          label={trans.__('Memory')}
          text={bytesOf(gpu.memory_used_bytes, gpu.memory_total_bytes)}
          value={gpu.memory_used_bytes / gpu.memory_total_bytes}
        />
      )}
      {percent !== null && (
        <>
          <Meter
            label={trans.__('Utilisation')}
            text={`${Math.round(percent)} %`}
            value={percent / 100}
          />
          <Sparkline
            values={history}
            points={HISTORY}
            label={trans.__(
              'Utilisation lately: %1 % now, %2 % at most',
              Math.round(percent),
              peak
            )}
          />
        </>
      )}
      <Processes gpu={gpu} />
    </div>
  );
}

function Processes(props: { gpu: Gpu }): ReactElement | null {
  const trans = useTrans();
  const { processes } = props.gpu;
  if (processes.length === 0) {
    return null;
  }
  return (
    <details>
      <summary>
        {trans._n('%1 process', '%1 processes', processes.length, processes.length)}
      </summary>
      <table className="gpucloud-Table">
        <thead>
          <tr>
            <th scope="col">{trans.__('PID')}</th>
            <th scope="col">{trans.__('Memory')}</th>
            <th scope="col">{trans.__('Command')}</th>
          </tr>
        </thead>
        <tbody>
          {processes.map(one => (
            <tr key={one.pid}>
              <td>{one.pid}</td>
              <td>{one.memory_bytes === null ? '–' : bytes(one.memory_bytes)}</td>
              <td>
                <code>{one.command}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
