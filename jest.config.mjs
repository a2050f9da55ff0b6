// JupyterLab's packages are ES modules: they are compiled as ours are.
const compiled = [
  '@jupyterlab',
  '@jupyter',
  '@lumino',
  '@microsoft',
  'exenv-es6',
  'lib0',
  'y-protocols',
  'yjs',
  'nanoid'
];
const swc = {
  jsc: {
    parser: { syntax: 'typescript', tsx: true },
    transform: { react: { runtime: 'automatic' } },
    target: 'es2022'
  }
};
const tests = '<rootDir>/tests/labext/frontend';

export default {
  testEnvironment: `${tests}/environment.cjs`,
  setupFilesAfterEnv: [`${tests}/setup.cjs`],
  testTimeout: 30000,
  roots: [tests],
  testMatch: ['**/*.test.ts?(x)'],
  transform: { '\\.[jt]sx?$': ['@swc/jest', swc], '\\.svg$': `${tests}/text.cjs` },
  transformIgnorePatterns: [`/node_modules/(?!(${compiled.join('|')})/)`],
  moduleNameMapper: { '\\.css$': `${tests}/empty.cjs` },
  cacheDirectory: '<rootDir>/node_modules/.cache/jest'
};
