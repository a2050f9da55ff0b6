import * as format from '../../../gpucloud_labext/frontend/format';
import {
  logdirOf,
  mayBeInS3,
  shortName,
  splitArguments
} from '../../../gpucloud_labext/frontend/paths';
import { trans } from './server';

describe('amounts', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [16.25 * 1024 ** 3, '16.3 GiB'],
    [2 ** 60, '1024 PiB']
  ])('%d bytes are %s', (count, words) => {
    expect(format.bytes(count)).toBe(words);
  });

  it('shows both parts of a memory in the unit of the whole', () => {
    expect(format.bytesOf(512 * 1024 ** 2, 16 * 1024 ** 3)).toBe('0.5 / 16 GiB');
    expect(format.bytesOf(0, 16 * 1024 ** 3)).toBe('0 / 16 GiB');
  });

  it('never puts money through a float', () => {
    expect(format.money('0.10000000000000000001', 'EUR')).toBe('0.10000000000000000001 EUR');
    expect(format.money('1.00', null)).toBe('1.00');
  });

  it('counts GPU-hours', () => {
    expect(format.gpuHours(5400)).toBe('1.50');
    expect(format.gpuHours(360_000)).toBe('100.0');
  });
});

describe('times', () => {
  it.each([
    [-3, '0 s'],
    [59.9, '59 s'],
    [60, '1 min'],
    [3600, '1 h 0 min'],
    [86_399, '23 h 59 min'],
    [90_000, '1 d 1 h']
  ])('%d seconds are %s', (seconds, words) => {
    expect(format.duration(trans, seconds)).toBe(words);
  });

  it('says how long ago, also where clocks differ a little', () => {
    const now = Date.parse('2026-11-23T12:00:00Z');
    expect(format.ago(trans, '2026-11-23T11:57:00Z', now)).toBe('3 min ago');
    expect(format.ago(trans, '2026-11-23T12:00:02Z', now)).toBe('just now');
    expect(format.ago(trans, null, now)).toBe('never');
    expect(format.ago(trans, 'yesterday', now)).toBe('never');
  });

  it('moves months over the end of a year, in UTC', () => {
    expect(format.month(new Date('2026-01-31T23:30:00Z'))).toBe('2026-01');
    expect(format.month(new Date('2026-01-31T23:30:00Z'), -1)).toBe('2025-12');
  });

  it('knows the days of a month', () => {
    expect(format.daysOf('2028-02')).toHaveLength(29);
    expect(format.daysOf('2026-12').at(-1)).toBe('2026-12-31');
  });
});

describe('folders of the file browser', () => {
  const s3 = { bucket: 'ada', team_buckets: { vision: 'team-vision' } };

  it.each([
    ['runs/a', 'runs/a'],
    ['', '.'],
    ['s3', 's3://ada'],
    ['s3/runs/ä b', 's3://ada/runs/ä b'],
    ['s3-vision/x', 's3://team-vision/x'],
    // only whole first parts, and only teams that are the user's
    ['s3x/runs', 's3x/runs'],
    ['s3-other/x', 's3-other/x'],
    ['s3-constructor/x', 's3-constructor/x'],
    ['runs/s3/x', 'runs/s3/x']
  ])('%s is the log directory %s', (path, logdir) => {
    expect(logdirOf(path, s3)).toBe(logdir);
  });

  it('takes s3 for a folder where there is no S3', () => {
    expect(logdirOf('s3/runs', null)).toBe('s3/runs');
    expect(logdirOf('s3/runs', { bucket: '' })).toBe('s3/runs');
  });

  it('asks for the buckets only where they may matter', () => {
    expect(mayBeInS3('s3/a')).toBe(true);
    expect(mayBeInS3('s3-vision')).toBe(true);
    expect(mayBeInS3('runs/s3')).toBe(false);
    expect(mayBeInS3('')).toBe(false);
  });

  it('names a tab after the last part', () => {
    expect(shortName('s3://ada/runs/first/')).toBe('first');
    expect(shortName('s3://ada')).toBe('ada');
    expect(shortName('.')).toBe('.');
  });
});

describe('arguments', () => {
  it.each<[string, string[] | null]>([
    ['', []],
    ['  --epochs  10 ', ['--epochs', '10']],
    ['--name "a b" \'c "d\'', ['--name', 'a b', 'c "d']],
    ['--empty ""', ['--empty', '']],
    ['a\\ b x"y z"', ['a b', 'xy z']],
    ["--x 'a\\b'", ['--x', 'a\\b']],
    ['$HOME;rm *', ['$HOME;rm', '*']],
    ['--name "a b', null]
  ])('%s is split as a shell would', (line, words) => {
    expect(splitArguments(line)).toEqual(words);
  });
});
