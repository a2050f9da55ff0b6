/** `findBy` and `waitFor` end as soon as they find something; on a slow machine that takes a while. */
const { configure } = require('@testing-library/dom');

configure({ asyncUtilTimeout: 10000 });
