/** Cards in the launcher. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILauncher } from '@jupyterlab/launcher';

import { COMMAND, IGPUCloud, PLUGIN } from '../tokens';

export const launcherPlugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.launcher,
  description: 'Cards of gpucloud in the launcher.',
  autoStart: true,
  requires: [IGPUCloud],
  optional: [ILauncher],
  activate: (_app: JupyterFrontEnd, cloud: IGPUCloud, launcher: ILauncher | null): void => {
    const category = cloud.trans.__('GPU Cloud');
    for (const command of [COMMAND.openTensorBoard, COMMAND.launchJob]) {
      launcher?.add({ command, category, args: { isLauncher: true } });
    }
  }
};
