/** From what a user has in front of them to what the API takes. Pure: no DOM, no requests. */
import type { S3 } from './api/types';

/** The file browser's folder of the user's own bucket; a team's is `s3-<team>`. */
const DRIVE = 's3';

/**
 * The log directory of a folder in the file browser: `s3/runs` is `s3://<bucket>/runs`, everything
 * else is relative to the home. Only whole first parts count: `s3-old-stuff` may be a plain folder.
 */
export function logdirOf(path: string, s3: Pick<S3, 'bucket' | 'team_buckets'> | null): string {
  const parts = path.split('/').filter(part => part !== '');
  const [first, ...rest] = parts;
  if (s3 !== null && first !== undefined) {
    const bucket = bucketOf(first, s3);
    if (bucket !== null) {
      return `s3://${[bucket, ...rest].join('/')}`;
    }
  }
  return parts.join('/') || '.';
}

function bucketOf(first: string, s3: Pick<S3, 'bucket' | 'team_buckets'>): string | null {
  if (first === DRIVE) {
    return s3.bucket || null;
  }
  const prefix = `${DRIVE}-`;
  const team = first.startsWith(prefix) ? first.slice(prefix.length) : '';
  const buckets = s3.team_buckets ?? {};
  return team !== '' && Object.hasOwn(buckets, team) ? (buckets[team] ?? null) : null;
}

/** Can only be answered by somebody who knows the buckets. */
export function mayBeInS3(path: string): boolean {
  const first = path.split('/').find(part => part !== '') ?? '';
  return first === DRIVE || first.startsWith(`${DRIVE}-`);
}

/** A short name for a tab: the last part of a log directory. */
export function shortName(logdir: string): string {
  const parts = logdir
    .replace(/^s3:\/\//, '')
    .split('/')
    .filter(part => part !== '');
  return parts.at(-1) ?? logdir;
}

/**
 * A line of arguments as a shell would split it: blanks separate, quotes keep together, a backslash
 * keeps the next character. Nothing is expanded. Null where a quote is not closed.
 */
export function splitArguments(line: string): string[] | null {
  const words: string[] = [];
  let word: string | null = null;
  let quote = '';
  for (let at = 0; at < line.length; at += 1) {
    const char = line.charAt(at);
    if (quote !== '' && char === quote) {
      quote = '';
    } else if (char === '\\' && quote !== "'" && at + 1 < line.length) {
      at += 1;
      word = (word ?? '') + line.charAt(at);
    } else if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
      word ??= '';
    } else if (quote === '' && /\s/.test(char)) {
      if (word !== null) {
        words.push(word);
      }
      word = null;
    } else {
      word = (word ?? '') + char;
    }
  }
  if (word !== null) {
    words.push(word);
  }
  return quote === '' ? words : null;
}
