/** Engines that can be asked for by name. */
export const ENGINE_CHOICES = ['auto', 'embedded', 'torch', 'vllm'] as const;
export type EngineChoice = (typeof ENGINE_CHOICES)[number];
