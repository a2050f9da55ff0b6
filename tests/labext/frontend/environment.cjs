/** jsdom with what browsers have and it lacks: fetch's classes of Node, and a few names. */
const { TestEnvironment } = require('jest-environment-jsdom');

module.exports = class extends TestEnvironment {
  constructor(...args) {
    super(...args);
    const lent = { fetch, Request, Response, Headers, TextEncoder, TextDecoder, structuredClone };
    // JupyterLab's packages name them when they are loaded; no test drags or resizes anything
    const missing = {
      matchMedia: () => ({ matches: false, addListener() {}, addEventListener() {} }),
      DragEvent: class extends this.global.Event {},
      ResizeObserver: class {
        observe() {}
        unobserve() {}
        disconnect() {}
      }
    };
    Object.assign(this.global, lent, missing);
    Object.defineProperty(this.global.navigator, 'clipboard', { value: {} });
  }
};
