/** The node's log: pino, for people on a terminal and as JSON lines elsewhere. */
import pino from 'pino';
import pretty from 'pino-pretty';
import type { Log } from './ports/machine.ts';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

export function createLog(level: LogLevel): Log {
  const stream = process.stdout.isTTY
    ? pretty({ colorize: true, translateTime: 'SYS:HH:MM:ss', ignore: 'pid,hostname', sync: true })
    : pino.destination({ dest: 1, sync: true });
  const logger = pino({ level, base: null }, stream);
  return (at, message, fields) => logger[at](fields ?? {}, message);
}
