/** "Usage": a month of the user's own GPU-hours and cost, by day. */
import { caretLeftIcon, caretRightIcon } from '@jupyterlab/ui-components';
import type { ReactElement } from 'react';
import { useState } from 'react';

import type { Usage, UsageRow } from '../api/types';
import { IconButton, Loaded } from '../components/basics';
import { BarChart, type Bar } from '../components/charts';
import { useResource, useTrans } from '../components/hooks';
import { daysOf, gpuHours, money } from '../format';
import type { Model } from '../model';

export function UsageSection(props: { model: Model }): ReactElement {
  const trans = useTrans();
  const { model } = props;
  const state = useResource(model.usage);
  return (
    <>
      <div className="gpucloud-Month">
        <IconButton
          icon={caretLeftIcon}
          label={trans.__('The month before')}
          onClick={() => void model.showMonth(model.monthsBack - 1)}
        />
        <span aria-live="polite">{monthName(model.month)}</span>
        <IconButton
          icon={caretRightIcon}
          label={trans.__('The month after')}
          disabled={model.monthsBack === 0}
          onClick={() => void model.showMonth(model.monthsBack + 1)}
        />
      </div>
      <Loaded resource={model.usage} state={state}>
        {usage => <Month usage={usage} month={model.month} />}
      </Loaded>
    </>
  );
}

function monthName(month: string): string {
  const options: Intl.DateTimeFormatOptions = { month: 'long', year: 'numeric', timeZone: 'UTC' };
  return new Date(`${month}-01T00:00:00Z`).toLocaleDateString(undefined, options);
}

type Quantity = 'hours' | 'cost';

function Month(props: { usage: Usage; month: string }): ReactElement {
  const trans = useTrans();
  const [quantity, setQuantity] = useState<Quantity>('hours');
  const { usage, month } = props;
  const rows = usage.rows.filter(row => row.day.startsWith(month));
  const seconds = usage.total?.gpu_seconds ?? rows.reduce((sum, row) => sum + row.gpu_seconds, 0);
  return (
    <>
      <div className="gpucloud-Amounts">
        <Amount
          value={gpuHours(seconds)}
          unit={trans.__('GPU-hours')}
          chosen={quantity === 'hours'}
          choose={() => setQuantity('hours')}
        />
        {usage.total && (
          <Amount
            value={usage.total.cost}
            unit={usage.currency}
            chosen={quantity === 'cost'}
            choose={() => setQuantity('cost')}
          />
        )}
      </div>
      <Chart rows={rows} month={month} quantity={quantity} currency={usage.currency} />
      <Sheet rows={rows} currency={usage.currency} />
    </>
  );
}

/** The sum, which also chooses what the bars show. */
function Amount(props: {
  value: string;
  unit: string;
  chosen: boolean;
  choose: () => void;
}): ReactElement {
  return (
    <button
      type="button"
      className="gpucloud-Amount"
      aria-pressed={props.chosen}
      onClick={props.choose}
    >
      <strong>{props.value}</strong> {props.unit}
    </button>
  );
}

function Chart(props: {
  rows: UsageRow[];
  month: string;
  quantity: Quantity;
  currency: string;
}): ReactElement {
  const trans = useTrans();
  const { rows, month, quantity, currency } = props;
  const byDay = new Map(rows.map(row => [row.day, row]));
  const inWords = (row: UsageRow | undefined): string =>
    quantity === 'hours'
      ? trans.__('%1 GPU-hours', gpuHours(row?.gpu_seconds ?? 0))
      : money(row?.cost ?? '0', currency);
  const amount = (row: UsageRow | undefined): number =>
    quantity === 'hours' ? (row?.gpu_seconds ?? 0) : Number(row?.cost ?? 0);
  const bars = daysOf(month).map((day, at): Bar => {
    const row = byDay.get(day);
    const tick = at === 0 || (at + 1) % 10 === 0 ? String(at + 1) : null;
    return { tick, value: amount(row), title: `${day}: ${inWords(row)}` };
  });
  const highest = rows.reduce<UsageRow | undefined>(
    (best, row) => (amount(row) > amount(best) ? row : best),
    undefined
  );
  const label =
    highest === undefined
      ? trans.__('Usage by day: none in this month')
      : trans.__('Usage by day, the highest %1 on %2', inWords(highest), highest.day);
  return <BarChart bars={bars} top={inWords(highest)} label={label} />;
}

function Sheet(props: { rows: UsageRow[]; currency: string }): ReactElement | null {
  const trans = useTrans();
  if (props.rows.length === 0) {
    return null;
  }
  return (
    <details>
      <summary>{trans.__('As a table')}</summary>
      <table className="gpucloud-Table">
        <thead>
          <tr>
            <th scope="col">{trans.__('Day')}</th>
            <th scope="col">{trans.__('GPU-hours')}</th>
            <th scope="col">{trans.__('Cost')}</th>
          </tr>
        </thead>
        <tbody>
          {props.rows.map(row => (
            <tr key={row.day}>
              <td>{row.day}</td>
              <td>{gpuHours(row.gpu_seconds)}</td>
              <td>{money(row.cost, props.currency)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
