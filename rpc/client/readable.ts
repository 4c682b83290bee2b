/** Values for people: by their metadata types, so that an account is an address and bytes are hex. */
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { TypeDef } from '../../runtime/primitives/scale/type.ts';
import { addressOf } from './address.ts';

const isAccount = ({ path }: TypeDef): boolean => path?.at(-1) === 'AccountId32';

/** `value` as its codec decodes it. Big integers become decimal text; calls in it go through `call`. */
export function readable(type: TypeDef, value: unknown, call: (value: unknown) => unknown): unknown {
  const { shape } = type;
  if (shape.kind === 'outer') return shape.name === 'RuntimeCall' ? call(value) : plain(value);
  if (value instanceof Uint8Array) return isAccount(type) ? addressOf(value) : toHex(value);
  switch (shape.kind) {
    case 'sequence':
    case 'array':
      return Array.isArray(value) ? value.map((each) => readable(shape.of, each, call)) : plain(value);
    case 'tuple':
      return Array.isArray(value)
        ? value.map((each, at) => {
            const part = shape.of[at];
            return part === undefined ? plain(each) : readable(part, each, call);
          })
        : plain(value);
    case 'composite':
      return composite(shape.fields, value, call);
    case 'variant':
      return variant(type, value, call);
    default:
      return plain(value);
  }
}

type Fields = Extract<TypeDef['shape'], { kind: 'composite' }>['fields'];

/** Values have their fields in the order of the type; a newtype has the value of its one field. */
function composite(fields: Fields, value: unknown, call: (value: unknown) => unknown): unknown {
  const [first] = fields;
  if (fields.length === 1 && first !== undefined && first.name === undefined) return readable(first.type, value, call);
  if (typeof value !== 'object' || value === null) return plain(value);
  return Object.fromEntries(
    Object.values(value).map((each, at) => {
      const field = fields[at];
      return [field?.name ?? String(at), field === undefined ? plain(each) : readable(field.type, each, call)];
    }),
  );
}

function variant({ path, shape }: TypeDef, value: unknown, call: (value: unknown) => unknown): unknown {
  if (shape.kind !== 'variant' || value === undefined) return null;
  const bodyOf = (fields: Fields, body: unknown): unknown => {
    const [only] = fields;
    if (fields.length === 1 && only !== undefined && only.name === undefined) return readable(only.type, body, call);
    return composite(fields, body, call);
  };
  if (path?.at(-1) === 'Option' && path.length === 1) {
    return bodyOf(shape.variants.find(({ name }) => name === 'Some')?.fields ?? [], value);
  }
  if (typeof value !== 'object' || value === null || !('type' in value)) return plain(value);
  const chosen = shape.variants.find(({ name }) => name === value.type);
  if (chosen === undefined || chosen.fields.length === 0 || !('value' in value)) return value.type;
  return { [chosen.name]: bodyOf(chosen.fields, value.value) };
}

/** Bytes as hex and big integers as text, wherever they stand. */
export function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return toHex(value);
  if (value === undefined) return null;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}
