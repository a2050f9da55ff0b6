/** gpucloud's own icons, in the theme's colours (`jp-icon*` classes). */
import { LabIcon } from '@jupyterlab/ui-components';

const svg = (drawing: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">${drawing}</svg>`;

const CLOUD =
  'M18.5 19H7a5 5 0 0 1-.9-9.92A6.5 6.5 0 0 1 18.4 10.5 4.25 4.25 0 0 1 18.5 19zM7 17h11.5a2.25 2.25 0 0 0 .06-4.5l-1.74-.04-.26-1.73A4.5 4.5 0 0 0 8.05 9.7l-.4 1.16-1.2.21A3 3 0 0 0 7 17z';

/** A cloud with a processor in it. */
export const cloudIcon = new LabIcon({
  name: 'gpucloud:cloud',
  svgstr: svg(
    `<path class="jp-icon3 jp-icon-selectable" fill="#616161" d="${CLOUD}"/>` +
      '<path class="jp-icon3 jp-icon-selectable" fill="#616161" d="M9.5 11.75h5v4.25h-5zM10.9 13.1v1.5h2.2v-1.5z" fill-rule="evenodd"/>'
  )
});

/** Curves of a training. */
export const tensorboardIcon = new LabIcon({
  name: 'gpucloud:tensorboard',
  svgstr: svg(
    '<path class="jp-icon3" fill="#616161" d="M3 3h2v16h16v2H3z"/>' +
      // the theme's classes fill what has a fill attribute, hence the group
      '<g fill="none" stroke-width="2">' +
      '<path class="jp-icon-warn0" stroke="#f57c00" d="M6.5 5.5c1.5 7 4 10 13.5 10.5"/>' +
      '<path class="jp-icon-brand0" stroke="#1976d2" d="M6.5 16c4-.5 6-9 13.5-9.5"/></g>'
  )
});

/** Something that runs on several machines. */
export const jobIcon = new LabIcon({
  name: 'gpucloud:job',
  svgstr: svg(
    '<path class="jp-icon3" fill="#616161" fill-rule="evenodd" d="M3 3h8v8H3zm2 2v4h4V5zM3 13h8v8H3zm2 2v4h4v-4zM13 13h8v8h-8zm2 2v4h4v-4z"/>' +
      '<path class="jp-icon-brand0 jp-icon-selectable" fill="#1976d2" d="M14 2.5 22 7l-8 4.5z"/>'
  )
});
