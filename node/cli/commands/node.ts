/** `openledger node`. */
import type { Command } from 'commander';
import type { NodeOptions } from '../../options.ts';
import { startNode } from '../../service.ts';
import { announce } from '../child.ts';
import { applyConfigFile } from '../config-file.ts';
import { type NodeFlags, nodeOptions, withNodeFlags } from '../node-flags.ts';
import { stopSignal } from '../options.ts';

async function runNode(options: NodeOptions): Promise<void> {
  const { spec, log } = options;
  const node = await startNode(options, stopSignal());
  log('info', `${spec.name}: JSON-RPC at ${node.rpc.ws} and ${node.rpc.http}, data in ${node.directory}`);
  if (node.metricsUrl !== undefined) log('info', `metrics at ${node.metricsUrl}`);
  announce({ node: node.rpc.ws });
  process.on('SIGHUP', () => {
    try {
      node.reloadKeys();
    } catch (problem) {
      log('error', `the keystore could not be read again: ${(problem as Error).message}`);
    }
  });
  await node.stopped;
  log('info', 'stopped');
}

export function nodeCommands(program: Command): void {
  withNodeFlags(program.command('node'))
    .description('run a node')
    .action((flags: NodeFlags, command: Command) => {
      const file: string | undefined = command.opts().config;
      if (file !== undefined) applyConfigFile(command, file);
      return runNode(nodeOptions(file === undefined ? flags : command.opts<NodeFlags>()));
    });
}
