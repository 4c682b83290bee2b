/** What backed a validator in an era, cut into pages that one payout can take. */
import type { Host } from '../../../host.ts';
import type { AccountId } from '../../../primitives/types.ts';
import { store } from './store.ts';
import { type Exposure, MAX_EXPOSURE_PAGE_SIZE } from './types.ts';

export function storeExposures(host: Host, era: number, elected: ReadonlyMap<AccountId, Exposure>): void {
  let total = 0n;
  for (const [who, exposure] of elected) {
    total += exposure.total;
    const pageCount = Math.ceil(exposure.others.length / MAX_EXPOSURE_PAGE_SIZE);
    store.ErasStakersOverview.insert(host, [era, who], {
      total: exposure.total,
      own: exposure.own,
      nominatorCount: exposure.others.length,
      pageCount,
    });
    for (let page = 0; page < pageCount; page++) {
      const others = exposure.others.slice(page * MAX_EXPOSURE_PAGE_SIZE, (page + 1) * MAX_EXPOSURE_PAGE_SIZE);
      const pageTotal = others.reduce((sum, { value }) => sum + value, 0n);
      store.ErasStakersPaged.insert(host, [era, who, page], { pageTotal, others });
    }
    store.ErasValidatorPrefs.insert(host, [era, who], store.Validators.get(host, who));
  }
  store.ErasTotalStake.insert(host, era, total);
}

/** What backed a validator in an era, from all its pages; undefined for one who was not elected. */
export function exposureOf(host: Host, era: number, who: AccountId): Exposure | undefined {
  const overview = store.ErasStakersOverview.get(host, [era, who]);
  if (overview === undefined) return undefined;
  const pages = Array.from({ length: overview.pageCount }, (_, page) =>
    store.ErasStakersPaged.get(host, [era, who, page]),
  );
  return { total: overview.total, own: overview.own, others: pages.flatMap((page) => page?.others ?? []) };
}

export function forgetExposures(host: Host, era: number): void {
  store.ErasStakersOverview.clear(host, [era]);
  store.ErasStakersPaged.clear(host, [era]);
  store.ErasValidatorPrefs.clear(host, [era]);
  store.ErasTotalStake.remove(host, era);
}
