#!/usr/bin/env node
// Started outside of npm scripts, this runs on whatever Node there is: it must say so if that one cannot read TypeScript.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(
    `openledger needs Node 22.18 or later, this is ${process.versions.node}. "npm run openledger -- ..." brings its own.`,
  );
  process.exit(1);
}
await import('./main.ts');
