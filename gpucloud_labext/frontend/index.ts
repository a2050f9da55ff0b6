/** gpucloud in JupyterLab and Notebook 7. This file only lists the plugins. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

import { jobsPlugin } from './plugins/jobs';
import { launcherPlugin } from './plugins/launcher';
import { panelPlugin } from './plugins/panel';
import { statusPlugin } from './plugins/status';
import { tensorboardsPlugin } from './plugins/tensorboards';

const plugins: JupyterFrontEndPlugin<unknown>[] = [
  panelPlugin,
  tensorboardsPlugin,
  jobsPlugin,
  launcherPlugin,
  statusPlugin
];

export default plugins;
