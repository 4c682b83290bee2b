/** A decoded call: the pallet's name, the call's name in snake_case, its arguments. */
export interface RuntimeCall {
  readonly type: string;
  readonly value: { readonly type: string; readonly value?: unknown };
}
