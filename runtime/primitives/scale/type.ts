/** What a codec says of its type, in the terms of `scale-info`: metadata is derived from it. */

export type PrimitiveName =
  | 'bool'
  | 'char'
  | 'str'
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'u128'
  | 'u256'
  | 'i8'
  | 'i16'
  | 'i32'
  | 'i64'
  | 'i128'
  | 'i256';

export interface FieldDef {
  readonly name?: string;
  readonly type: TypeDef;
  readonly typeName?: string;
  readonly docs?: string;
}

export interface VariantDef {
  readonly name: string;
  readonly index: number;
  readonly fields: readonly FieldDef[];
  readonly docs?: string;
}

export type TypeShape =
  | { readonly kind: 'primitive'; readonly name: PrimitiveName }
  | { readonly kind: 'composite'; readonly fields: readonly FieldDef[] }
  | { readonly kind: 'variant'; readonly variants: readonly VariantDef[] }
  | { readonly kind: 'sequence'; readonly of: TypeDef }
  | { readonly kind: 'array'; readonly of: TypeDef; readonly length: number }
  | { readonly kind: 'tuple'; readonly of: readonly TypeDef[] }
  | { readonly kind: 'compact'; readonly of: TypeDef }
  /** A type that only the assembled runtime knows, resolved when metadata is made. */
  | { readonly kind: 'outer'; readonly name: string };

export interface TypeDef {
  readonly path?: readonly string[];
  readonly params?: readonly { readonly name: string; readonly type?: TypeDef }[];
  readonly docs?: string;
  readonly shape: TypeShape;
}
