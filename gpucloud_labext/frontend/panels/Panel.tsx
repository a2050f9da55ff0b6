/** The side panel: four sections that open and close, and remember how they were. */
import type { IStateDB } from '@jupyterlab/statedb';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import { Section } from '../components/basics';
import { VisibleWidget } from '../components/visible';
import { cloudIcon } from '../icons';
import type { Model } from '../model';
import { JobsSection, type JobsActions } from './JobsSection';
import { ServerSection } from './ServerSection';
import { TensorBoardsSection } from './TensorBoardsSection';
import { UsageSection } from './UsageSection';

export const SECTIONS = ['server', 'tensorboards', 'jobs', 'usage'] as const;
export type SectionName = (typeof SECTIONS)[number];

const STATE_KEY = 'gpucloud:closed-sections';

export class Panel extends VisibleWidget {
  constructor(
    trans: TranslationBundle,
    private readonly model: Model,
    private readonly actions: JobsActions,
    private readonly state: IStateDB | null
  ) {
    super(trans);
    this.id = 'gpucloud-panel';
    this.addClass('gpucloud-Panel');
    this.title.icon = cloudIcon;
    this.title.caption = trans.__('GPU Cloud');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('GPU Cloud'));
    void this.restore();
  }

  /** Opens a section and puts the focus on its title. */
  reveal(section: SectionName): void {
    this.closed.delete(section);
    this.remember();
    this.focusOn = section;
    this.update();
  }

  /** Opens the form for a new job. */
  propose(script: string | null): void {
    this.proposed = script;
    if (script !== null) {
      this.closed.delete('jobs');
      this.remember();
    }
    this.update();
  }

  protected body(): ReactElement {
    const { model, trans, actions } = this;
    const titles: Record<SectionName, string> = {
      server: trans.__('This server'),
      tensorboards: trans.__('TensorBoards'),
      jobs: trans.__('Jobs'),
      usage: trans.__('Usage')
    };
    const bodies: Record<SectionName, () => ReactElement> = {
      server: () => <ServerSection model={model} />,
      tensorboards: () => <TensorBoardsSection model={model} open={actions.openTensorBoard} />,
      jobs: () => (
        <JobsSection
          model={model}
          actions={actions}
          proposed={this.proposed}
          propose={script => this.propose(script)}
        />
      ),
      usage: () => <UsageSection model={model} />
    };
    return (
      <div ref={() => this.settleFocus()}>
        {SECTIONS.map(name => (
          <Section
            key={name}
            name={name}
            title={titles[name]}
            open={!this.closed.has(name)}
            onToggle={() => this.toggle(name)}
          >
            {bodies[name]()}
          </Section>
        ))}
      </div>
    );
  }

  private settleFocus(): void {
    if (this.focusOn !== null) {
      const title = this.node.querySelector<HTMLElement>(`[data-section="${this.focusOn}"]`);
      this.focusOn = null;
      title?.focus();
      title?.scrollIntoView({ block: 'nearest' });
    }
  }

  private toggle(name: SectionName): void {
    if (!this.closed.delete(name)) {
      this.closed.add(name);
    }
    this.remember();
    this.update();
  }

  private remember(): void {
    void this.state?.save(STATE_KEY, [...this.closed]).catch(console.warn);
  }

  private async restore(): Promise<void> {
    const saved = await this.state?.fetch(STATE_KEY).catch(() => undefined);
    if (Array.isArray(saved)) {
      this.closed = new Set(SECTIONS.filter(name => saved.includes(name)));
      this.update();
    }
  }

  private closed = new Set<SectionName>();
  private proposed: string | null = null;
  private focusOn: SectionName | null = null;
}
