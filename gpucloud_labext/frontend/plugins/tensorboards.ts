/** TensorBoards in tabs: from the palette, the panel, or a folder's context menu. */
import {
  ILabShell,
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, InputDialog, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';

import { tensorboardIcon } from '../icons';
import { TensorBoardTab } from '../panels/TensorBoardTab';
import { logdirOf, mayBeInS3 } from '../paths';
import { COMMAND, IGPUCloud, PLUGIN } from '../tokens';

const ARGS = {
  type: 'object',
  properties: {
    logdir: {
      type: 'string',
      description: 'A folder relative to the home, or s3://bucket/prefix. Asked for if missing.'
    }
  }
} as const;

export const tensorboardsPlugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN.tensorboards,
  description: 'Opens TensorBoards in tabs and from folders.',
  autoStart: true,
  requires: [IGPUCloud],
  optional: [ILabShell, ICommandPalette, ILayoutRestorer, IFileBrowserFactory],
  activate: (
    app: JupyterFrontEnd,
    cloud: IGPUCloud,
    labShell: ILabShell | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    browsers: IFileBrowserFactory | null
  ): void => {
    const { trans, model, api } = cloud;
    const tracker = new WidgetTracker<MainAreaWidget<TensorBoardTab>>({ namespace: 'gpucloud' });

    const openTab = (logdir: string): void => {
      const open = tracker.find(({ content }) => content.logdir === logdir);
      const tab = open ?? new MainAreaWidget({ content: new TensorBoardTab(trans, model, logdir) });
      if (!open) {
        void tracker.add(tab);
        app.shell.add(tab, 'main');
      }
      app.shell.activateById(tab.id);
    };

    app.commands.addCommand(COMMAND.openTensorBoard, {
      label: args => (args['isLauncher'] ? trans.__('TensorBoard') : trans.__('Open TensorBoard…')),
      caption: trans.__('Curves, graphs and images of a training'),
      icon: tensorboardIcon,
      describedBy: { args: ARGS },
      execute: async args => {
        const given = args['logdir'];
        const logdir = typeof given === 'string' ? given : await askFor(cloud, browsers);
        if (logdir === null || logdir === '') {
          return;
        }
        if (labShell !== null) {
          openTab(logdir);
          return;
        }
        // Notebook has one main area per page: a TensorBoard gets a page of its own
        const tensorboard = await api.startTensorBoard(logdir);
        void model.tensorboards.refresh();
        window.open(api.address(tensorboard.url), '_blank', 'noopener');
      }
    });
    palette?.addItem({ command: COMMAND.openTensorBoard, category: trans.__('GPU Cloud') });

    app.commands.addCommand(COMMAND.openFolderInTensorBoard, {
      label: trans.__('Open in TensorBoard'),
      icon: tensorboardIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isVisible: () => selectedFolder(browsers) !== null,
      execute: async () => {
        const path = selectedFolder(browsers);
        if (path !== null) {
          const logdir = await logdirOfFolder(app, cloud, path);
          await app.commands.execute(COMMAND.openTensorBoard, { logdir });
        }
      }
    });

    if (restorer && labShell) {
      void restorer.restore(tracker, {
        command: COMMAND.openTensorBoard,
        args: ({ content }) => ({ logdir: content.logdir }),
        name: ({ content }) => content.logdir
      });
    }
  }
};

function selectedFolder(browsers: IFileBrowserFactory | null): string | null {
  const items = [...(browsers?.tracker.currentWidget?.selectedItems() ?? [])];
  const [item] = items;
  return items.length === 1 && item?.type === 'directory' ? item.path : null;
}

async function logdirOfFolder(
  app: JupyterFrontEnd,
  cloud: IGPUCloud,
  path: string
): Promise<string> {
  // without the name of a drive of JupyterLab, such as that of real-time collaboration
  const local = app.serviceManager.contents.localPath(path);
  // without S3 a folder of that name is a folder
  const s3 = mayBeInS3(local) ? await cloud.api.s3().catch(() => null) : null;
  return logdirOf(local, s3);
}

async function askFor(
  cloud: IGPUCloud,
  browsers: IFileBrowserFactory | null
): Promise<string | null> {
  const { trans } = cloud;
  const answer = await InputDialog.getText({
    title: trans.__('Open TensorBoard'),
    label: trans.__('Log directory: relative to your home, or s3://bucket/folder'),
    text: browsers?.tracker.currentWidget?.model.path.replace(/^[^/]*:/, '') || 'runs',
    okLabel: trans.__('Open')
  });
  return answer.button.accept ? (answer.value?.trim() ?? null) : null;
}
