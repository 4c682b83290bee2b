/** Methods as data: what they are called, what they take, what they do. */
import type { ArgsOf, Param } from './params.ts';
import type { Session } from './session.ts';
import type { Cleanup, EndAnswer, Subscription } from './subscription.ts';

export interface Traits {
  /** Only for those who may do anything to this node. */
  readonly unsafe?: true;
  readonly aliases?: readonly string[];
  /** Makes sense only where something stays open: not over HTTP. */
  readonly connected?: true;
}

interface Named<C> extends Traits {
  readonly name: string;
  readonly params: readonly Param<unknown>[];
  readonly context?: C;
}
export interface MethodDefinition<C> extends Named<C> {
  readonly kind: 'method';
  readonly run: (context: C, args: readonly unknown[], session: Session) => unknown;
}
export interface SubscriptionDefinition<C> extends Named<C> {
  readonly kind: 'subscription';
  readonly unsubscribe: string;
  readonly unsubscribeAliases?: readonly string[];
  readonly end?: EndAnswer;
  /** The `method` of the notifications. */
  readonly notification: string;
  readonly start: (
    context: C,
    args: readonly unknown[],
    subscription: Subscription,
    session: Session,
  ) => Cleanup | Promise<Cleanup>;
}
export type Definition<C> = MethodDefinition<C> | SubscriptionDefinition<C>;

/** The two builders for methods that need a `C`. */
export function definitions<C>() {
  return {
    /** The result may be a promise. Expected failures are thrown as errors that `toRpcError` knows. */
    method<const P extends readonly Param<unknown>[]>(
      name: string,
      params: P,
      run: (context: C, args: ArgsOf<P>, session: Session) => unknown,
      traits: Traits = {},
    ): Definition<C> {
      return { kind: 'method', name, params, run: run as MethodDefinition<C>['run'], ...traits };
    },
    /** `start` returns what is to be done when nobody listens any more. */
    subscription<const P extends readonly Param<unknown>[]>(
      name: string,
      names: {
        readonly unsubscribe: string;
        readonly notification: string;
        readonly unsubscribeAliases?: readonly string[];
        readonly end?: EndAnswer;
      },
      params: P,
      start: (context: C, args: ArgsOf<P>, subscription: Subscription, session: Session) => Cleanup | Promise<Cleanup>,
      traits: Omit<Traits, 'connected'> = {},
    ): Definition<C> {
      return {
        kind: 'subscription',
        name,
        params,
        start: start as SubscriptionDefinition<C>['start'],
        connected: true,
        ...names,
        ...traits,
      };
    },
  };
}

type Bound =
  | (Omit<MethodDefinition<never>, 'run' | 'context'> & {
      run(args: readonly unknown[], session: Session): unknown;
    })
  | (Omit<SubscriptionDefinition<never>, 'start' | 'context'> & {
      start(args: readonly unknown[], subscription: Subscription, session: Session): Cleanup | Promise<Cleanup>;
    });
export type BoundMethod = Bound;

/** Methods with what they depend on. */
export interface Group {
  readonly methods: readonly BoundMethod[];
}

export function group<C>(context: C, methods: readonly Definition<C>[]): Group {
  return {
    methods: methods.map((each): BoundMethod => {
      if (each.kind === 'method') {
        const { run } = each;
        return { ...each, run: (args, session) => run(context, args, session) } as BoundMethod;
      }
      const { start } = each;
      return {
        ...each,
        start: (args, subscription, session) => start(context, args, subscription, session),
      } as BoundMethod;
    }),
  };
}
