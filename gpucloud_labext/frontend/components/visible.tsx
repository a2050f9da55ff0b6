/** A Lumino widget around React components, which tells them whether it is shown. */
import { ReactWidget } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import type { ReactElement } from 'react';

import { TransContext, VisibleContext } from './hooks';

export abstract class VisibleWidget extends ReactWidget {
  constructor(protected readonly trans: TranslationBundle) {
    super();
    this.addClass('gpucloud');
  }

  protected abstract body(): ReactElement;

  protected render(): ReactElement {
    return (
      <TransContext.Provider value={this.trans}>
        <VisibleContext.Provider value={this.shown}>{this.body()}</VisibleContext.Provider>
      </TransContext.Provider>
    );
  }

  protected onAfterAttach(msg: Message): void {
    this.shown = this.isVisible;
    super.onAfterAttach(msg);
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this.setShown(true);
  }

  protected onBeforeHide(msg: Message): void {
    this.setShown(false);
    super.onBeforeHide(msg);
  }

  private setShown(shown: boolean): void {
    this.shown = shown;
    this.update();
  }

  private shown = false;
}
