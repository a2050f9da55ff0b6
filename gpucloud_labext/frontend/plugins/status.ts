/** The GPU memory in the status bar, if the settings want it. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import type { IDisposable } from '@lumino/disposable';

import { StatusItem } from '../panels/StatusItem';
import { IGPUCloud, PLUGIN } from '../tokens';

export const statusPlugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.status,
  description: 'GPU memory in the status bar.',
  autoStart: true,
  requires: [IGPUCloud],
  optional: [IStatusBar, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    cloud: IGPUCloud,
    bar: IStatusBar | null,
    registry: ISettingRegistry | null
  ): void => {
    if (bar === null) {
      return; // Notebook has none
    }
    let shown: IDisposable | null = null;
    const show = (wanted: boolean): void => {
      if (wanted && shown === null) {
        const item = new StatusItem(cloud.trans, cloud.model, () => cloud.show('server'));
        shown = bar.registerStatusItem(PLUGIN.status, { item, align: 'left', rank: 3 });
      } else if (!wanted && shown !== null) {
        shown.dispose();
        shown = null;
      }
    };
    void app.restored.then(async () => {
      const settings = await registry?.load(PLUGIN.panel).catch(() => undefined);
      const apply = (): void => show(settings?.get('showStatusItem').composite !== false);
      settings?.changed.connect(apply);
      apply();
    });
  }
};
