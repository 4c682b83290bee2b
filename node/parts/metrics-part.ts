/** Numbers for Prometheus, where the options name an address for them. */
import type { Metrics } from '../metrics/metrics.ts';
import type { MetricsServer } from '../metrics/server.ts';
import type { Ground } from './ground.ts';

export interface MetricsPart {
  readonly numbers: Metrics;
  readonly server: MetricsServer;
}

/** Undefined where nobody asks for metrics. Their modules are loaded when asked for, as the network's are. */
export async function openMetrics({ options, open }: Ground): Promise<MetricsPart | undefined> {
  if (options.metrics === undefined) return undefined;
  const [{ Metrics }, { metricsServer }] = await Promise.all([
    import('../metrics/metrics.ts'),
    import('../metrics/server.ts'),
  ]);
  const numbers = new Metrics(options.spec.id);
  const server = await metricsServer(numbers.registry, options.metrics);
  open.defer(() => server.close());
  return { numbers, server };
}
