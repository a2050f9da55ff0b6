// TypeScript straight into the bundle: there is no second tree of compiled files that could be stale.
// Types are checked by `npm run lint`.
module.exports = {
  module: {
    rules: [
      {
        test: /\.tsx?$/,
        exclude: /node_modules/,
        loader: 'builtin:swc-loader',
        options: {
          jsc: {
            parser: { syntax: 'typescript', tsx: true },
            transform: { react: { runtime: 'automatic' } },
            target: 'es2022'
          }
        },
        type: 'javascript/auto'
      }
    ]
  },
  resolve: { extensions: ['.tsx', '.ts', '.js'] }
};
