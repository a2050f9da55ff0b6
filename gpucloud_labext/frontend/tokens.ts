/** Names that plugins share: of plugins, of commands, and the token by which they meet. */
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';

import type { Api } from './api/client';
import type { Model } from './model';

export const PLUGIN = {
  panel: 'gpucloud:panel',
  tensorboards: 'gpucloud:tensorboards',
  jobs: 'gpucloud:jobs',
  launcher: 'gpucloud:launcher',
  status: 'gpucloud:status'
} as const;

export const COMMAND = {
  showPanel: 'gpucloud:show-panel',
  openTensorBoard: 'gpucloud:open-tensorboard',
  openFolderInTensorBoard: 'gpucloud:open-folder-in-tensorboard',
  launchJob: 'gpucloud:launch-job',
  runFileAsJob: 'gpucloud:run-file-as-job',
  showJobLogs: 'gpucloud:show-job-logs'
} as const;

/** The domain of the translations. */
export const DOMAIN = 'gpucloud';

/** What every plugin of gpucloud needs: the API, the state, the panel, the language. */
export interface IGPUCloud {
  readonly api: Api;
  readonly model: Model;
  readonly translator: ITranslator;
  readonly trans: TranslationBundle;
  /** Shows the side panel, with one section of it open and focused if named. */
  show(section?: 'server' | 'tensorboards' | 'jobs' | 'usage'): void;
  /** Shows the form for a new job, its script filled in if given. */
  proposeJob(script?: string): void;
}

export const IGPUCloud = new Token<IGPUCloud>(
  'gpucloud:IGPUCloud',
  'The gpucloud API, its state and its side panel.'
);
