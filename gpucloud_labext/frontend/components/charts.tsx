/** Meters, sparklines and bars, drawn as SVG in the theme's colours. Each says in words what it shows. */
import type { ReactElement } from 'react';

/** From which share on a meter warns. */
const NEARLY_FULL = 0.9;

export function Meter(props: { label: string; text: string; value: number }): ReactElement {
  const value = Math.min(1, Math.max(0, Number.isFinite(props.value) ? props.value : 0));
  return (
    <div className="gpucloud-Meter">
      <span aria-hidden="true">{props.label}</span>
      <span aria-hidden="true" className="gpucloud-Meter-text">
        {props.text}
      </span>
      <div
        role="meter"
        className="gpucloud-Meter-track"
        aria-label={props.label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(value * 100)}
        aria-valuetext={props.text}
        data-full={value >= NEARLY_FULL}
      >
        <div style={{ width: `${value * 100}%` }} />
      </div>
    </div>
  );
}

const WIDTH = 240;
const SPARK_HEIGHT = 30;

/** Percent values, the newest at the right edge; `points` is how many fit. */
export function Sparkline(props: {
  values: readonly number[];
  points: number;
  label: string;
}): ReactElement {
  const step = WIDTH / (props.points - 1);
  const start = WIDTH - (props.values.length - 1) * step;
  const place = (value: number, at: number): string => {
    const height =
      SPARK_HEIGHT - 1 - (Math.min(100, Math.max(0, value)) / 100) * (SPARK_HEIGHT - 2);
    return `${(start + at * step).toFixed(1)},${height.toFixed(1)}`;
  };
  const line = props.values.map(place).join(' ');
  return (
    <svg
      role="img"
      aria-label={props.label}
      className="gpucloud-Sparkline"
      viewBox={`0 0 ${WIDTH} ${SPARK_HEIGHT}`}
      preserveAspectRatio="none"
    >
      <title>{props.label}</title>
      {props.values.length > 1 && (
        <>
          <polygon
            points={`${start.toFixed(1)},${SPARK_HEIGHT} ${line} ${WIDTH},${SPARK_HEIGHT}`}
          />
          <polyline points={line} vectorEffect="non-scaling-stroke" />
        </>
      )}
    </svg>
  );
}

export interface Bar {
  /** Below the axis; only some are shown. */
  tick: string | null;
  value: number;
  /** All about this bar, for a tooltip. */
  title: string;
}

const CHART_HEIGHT = 96;
const PLOT = { top: 12, bottom: 16 };

/** Bars side by side, with the highest value at the top of the scale. */
export function BarChart(props: { bars: Bar[]; top: string; label: string }): ReactElement {
  const highest = Math.max(...props.bars.map(bar => bar.value), 0);
  const step = WIDTH / Math.max(1, props.bars.length);
  const height = CHART_HEIGHT - PLOT.top - PLOT.bottom;
  const floor = CHART_HEIGHT - PLOT.bottom;
  return (
    <svg
      role="img"
      aria-label={props.label}
      className="gpucloud-BarChart"
      viewBox={`0 0 ${WIDTH} ${CHART_HEIGHT}`}
    >
      <line className="gpucloud-axis" x1={0} x2={WIDTH} y1={PLOT.top} y2={PLOT.top} />
      <line className="gpucloud-axis" x1={0} x2={WIDTH} y1={floor} y2={floor} />
      <text x={0} y={PLOT.top - 3}>
        {props.top}
      </text>
      {props.bars.map((bar, at) => {
        const tall = highest > 0 ? (bar.value / highest) * height : 0;
        return (
          <g key={at}>
            <title>{bar.title}</title>
            <rect
              className="gpucloud-touch"
              x={at * step}
              y={PLOT.top}
              width={step}
              height={height}
            />
            <rect
              className="gpucloud-bar"
              x={at * step + step * 0.12}
              y={floor - tall}
              width={step * 0.76}
              height={tall}
            />
            {bar.tick !== null && (
              <text x={(at + 0.5) * step} y={CHART_HEIGHT - 4} textAnchor="middle">
                {bar.tick}
              </text>
            )}
          </g>
        );
      })}
    </svg>
  );
}
