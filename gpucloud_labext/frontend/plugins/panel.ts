/** The side panel, and what the other plugins build on: API, state, language. Reads the settings. */
import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Api } from '../api/client';
import type { Job } from '../api/types';
import { cloudIcon } from '../icons';
import { Model } from '../model';
import { Panel } from '../panels/Panel';
import { COMMAND, DOMAIN, IGPUCloud, PLUGIN } from '../tokens';

export const panelPlugin: JupyterFrontEndPlugin<IGPUCloud> = {
  id: PLUGIN.panel,
  description: 'The GPU Cloud side panel: this server, TensorBoards, jobs and usage.',
  autoStart: true,
  provides: IGPUCloud,
  optional: [ITranslator, ISettingRegistry, ICommandPalette, ILayoutRestorer, IStateDB],
  activate: (
    app: JupyterFrontEnd,
    translator: ITranslator | null,
    settings: ISettingRegistry | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    state: IStateDB | null
  ): IGPUCloud => {
    const language = translator ?? nullTranslator;
    const trans = language.load(DOMAIN);
    const api = new Api(app.serviceManager.serverSettings, trans);
    const model = new Model(api);
    const execute = (command: string, args: Record<string, string>): Promise<void> =>
      app.commands.execute(command, args).then(() => undefined);
    const panel = new Panel(
      trans,
      model,
      {
        openTensorBoard: logdir => execute(COMMAND.openTensorBoard, { logdir }),
        showLogs: ({ id, name }: Job) => void execute(COMMAND.showJobLogs, { id, name })
      },
      state
    );
    app.shell.add(panel, 'left', { rank: 450, type: 'GPU Cloud' });
    restorer?.add(panel, panel.id);

    const show: IGPUCloud['show'] = section => {
      app.shell.activateById(panel.id);
      if (section !== undefined) {
        panel.reveal(section);
      }
    };
    app.commands.addCommand(COMMAND.showPanel, {
      label: trans.__('Show GPU Cloud'),
      caption: trans.__('This server, TensorBoards, jobs and usage'),
      icon: cloudIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => show('server')
    });
    palette?.addItem({ command: COMMAND.showPanel, category: trans.__('GPU Cloud') });
    // not during the start, in which JupyterLab's own plugins still read their settings
    void app.restored.then(() => follow(settings, model));
    return {
      api,
      model,
      translator: language,
      trans,
      show,
      proposeJob: (script = '') => {
        app.shell.activateById(panel.id);
        panel.propose(script);
      }
    };
  }
};

/** The settings, now and when they change. Without them the defaults stay. */
async function follow(registry: ISettingRegistry | null, model: Model): Promise<void> {
  if (registry === null) {
    return;
  }
  try {
    const settings = await registry.load(PLUGIN.panel);
    const apply = (): void => model.setInterval(settings.get('pollSeconds').composite as number);
    settings.changed.connect(apply);
    apply();
  } catch (reason) {
    console.warn('gpucloud: the settings cannot be read; the defaults are in use.', reason);
  }
}
