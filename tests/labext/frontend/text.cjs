/** An svg file as its text, as the bundler gives it to JupyterLab's packages. */
module.exports = {
  process: source => ({ code: `module.exports = ${JSON.stringify(source)};` })
};
