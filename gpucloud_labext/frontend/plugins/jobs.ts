/** Jobs: the way to the form, from the palette or a script's context menu, and tabs with logs. */
import {
  ILabShell,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';

import { jobIcon } from '../icons';
import { LogsTab } from '../panels/LogsTab';
import { COMMAND, IGPUCloud, PLUGIN } from '../tokens';

/** What the server can run. */
const SCRIPT = /\.(py|ipynb)$/;

export const jobsPlugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.jobs,
  description: 'Launches jobs and shows their logs.',
  autoStart: true,
  requires: [IGPUCloud],
  optional: [ILabShell, ICommandPalette, IFileBrowserFactory],
  activate: (
    app: JupyterFrontEnd,
    cloud: IGPUCloud,
    labShell: ILabShell | null,
    palette: ICommandPalette | null,
    browsers: IFileBrowserFactory | null
  ): void => {
    const { trans, model, api } = cloud;
    const tabs = new WidgetTracker<MainAreaWidget<LogsTab>>({ namespace: 'gpucloud-logs' });
    const selectedScript = (): string | null => {
      const items = [...(browsers?.tracker.currentWidget?.selectedItems() ?? [])];
      const [item] = items;
      const isScript = items.length === 1 && item !== undefined && SCRIPT.test(item.path);
      return isScript ? app.serviceManager.contents.localPath(item.path) : null;
    };

    app.commands.addCommand(COMMAND.launchJob, {
      label: args => (args['isLauncher'] ? trans.__('Training job') : trans.__('Launch a Job…')),
      caption: trans.__('Run a script on GPUs of the cluster'),
      icon: jobIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => cloud.proposeJob()
    });
    palette?.addItem({ command: COMMAND.launchJob, category: trans.__('GPU Cloud') });

    app.commands.addCommand(COMMAND.runFileAsJob, {
      label: trans.__('Run as a Job…'),
      icon: jobIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isVisible: () => selectedScript() !== null,
      execute: () => cloud.proposeJob(selectedScript() ?? '')
    });

    app.commands.addCommand(COMMAND.showJobLogs, {
      label: trans.__('Logs of a Job'),
      describedBy: {
        args: {
          type: 'object',
          properties: { id: { type: 'string' }, name: { type: 'string' } },
          required: ['id']
        }
      },
      execute: args => {
        const id = String(args['id']);
        if (labShell === null) {
          window.open(api.jobLogsAddress(id), '_blank', 'noopener');
          return;
        }
        const open = tabs.find(({ content }) => content.job.id === id);
        const job = { id, name: String(args['name'] ?? id) };
        const tab = open ?? new MainAreaWidget({ content: new LogsTab(trans, model, job) });
        if (!open) {
          void tabs.add(tab);
          app.shell.add(tab, 'main');
        }
        app.shell.activateById(tab.id);
      }
    });
  }
};
