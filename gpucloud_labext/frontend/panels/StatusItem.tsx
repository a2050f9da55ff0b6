/** The item of the status bar: how much of the GPUs' memory is in use. A click shows the panel. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import type { Gpus } from '../api/types';
import { useResource, useTrans } from '../components/hooks';
import { VisibleWidget } from '../components/visible';
import { bytesOf } from '../format';
import type { Model } from '../model';

export class StatusItem extends VisibleWidget {
  constructor(
    trans: TranslationBundle,
    private readonly model: Model,
    private readonly onClick: () => void
  ) {
    super(trans);
    this.addClass('gpucloud-StatusItem');
  }

  protected body(): ReactElement {
    return <GpuMemory model={this.model} onClick={this.onClick} />;
  }
}

export function GpuMemory(props: { model: Model; onClick: () => void }): ReactElement | null {
  const trans = useTrans();
  const { data } = useResource(props.model.gpus);
  const sum = data === null ? null : memory(data);
  if (sum === null) {
    return null;
  }
  const words = bytesOf(sum.used, sum.total);
  return (
    <button
      type="button"
      className="gpucloud-StatusItem-button"
      title={trans.__('GPU memory in use. Click for more.')}
      onClick={props.onClick}
    >
      {trans.__('GPU %1', words)}
    </button>
  );
}

/** Over all devices that tell; null where none does. */
export function memory(gpus: Gpus): { used: number; total: number } | null {
  let used = 0;
  let total = 0;
  for (const device of gpus.devices) {
    used += device.memory_used_bytes ?? 0;
    total += device.memory_total_bytes ?? 0;
  }
  return total > 0 ? { used, total } : null;
}
