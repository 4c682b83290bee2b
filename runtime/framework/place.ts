/**
 * The place of a definition in the runtime: which pallet or runtime API lists it, and under which name. `pallet()` enters
 * every call, event and error that it is given, `runtimeApi()` every method, so that a definition alone says how it is
 * encoded and what it is called.
 */

export interface Place {
  /** As in the metadata, `Models`; of a method its API's name. */
  readonly pallet: string;
  /** −1 for methods of runtime APIs, which have no index. */
  readonly palletIndex: number;
  /** As written in the definitions: `orderTraining`, `Ordered`, `NotOwner`. */
  readonly name: string;
}

const places = new WeakMap<object, Place>();

/** Throws when another pallet, or another name of this one, has the definition already. */
export function enterPlace(definition: object, place: Place): void {
  const known = places.get(definition);
  if (known !== undefined && (known.pallet !== place.pallet || known.name !== place.name)) {
    throw new Error(`${known.pallet}.${known.name} is listed a second time, as ${place.pallet}.${place.name}`);
  }
  places.set(definition, place);
}

export const hasPlace = (definition: object): boolean => places.has(definition);

/** Throws for a definition that no pallet lists. */
export function placeOf(definition: object): Place {
  const known = places.get(definition);
  if (known === undefined) throw new Error('no pallet lists this definition');
  return known;
}
