// JupyterLab's packages are ES modules: they are compiled as ours are.
const compiled = ['@jupyterlab', '@jupyter', '@lumino', 'lib0', 'y-protocols', 'yjs', 'nanoid'];

export default {
  testEnvironment: 'jsdom',
  roots: ['<rootDir>/tests/labext/frontend'],
  testMatch: ['**/*.test.ts?(x)'],
  transform: {
    '\\.[jt]sx?$': [
      '@swc/jest',
      {
        jsc: {
          parser: { syntax: 'typescript', tsx: true },
          transform: { react: { runtime: 'automatic' } },
          target: 'es2022'
        }
      }
    ],
    '\\.svg$': '<rootDir>/tests/labext/frontend/text.cjs'
  },
  transformIgnorePatterns: [`/node_modules/(?!(${compiled.join('|')})/)`],
  moduleNameMapper: { '\\.css$': '<rootDir>/tests/labext/frontend/empty.cjs' },
  setupFiles: ['<rootDir>/tests/labext/frontend/setup.ts'],
  cacheDirectory: '<rootDir>/node_modules/.cache/jest'
};
