import jsxA11y from 'eslint-plugin-jsx-a11y';
import reactHooks from 'eslint-plugin-react-hooks';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  {
    ignores: [
      '**/*.js',
      '**/*.mjs',
      '**/*.cjs',
      'gpucloud_labext/labextension/',
      '.venv*/',
      '.gpucloud/',
      'build/'
    ]
  },
  ...tseslint.configs.strict,
  jsxA11y.flatConfigs.strict,
  reactHooks.configs['recommended-latest'],
  {
    rules: {
      eqeqeq: 'error',
      'no-console': ['error', { allow: ['warn', 'error'] }],
      // user-written text never becomes markup
      'no-restricted-syntax': [
        'error',
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: 'Render text.' },
        { selector: "MemberExpression[property.name='innerHTML']", message: 'Use textContent.' }
      ],
      // widgets whose options are namespaced, as Lumino's are
      '@typescript-eslint/no-namespace': 'off'
    }
  }
);
