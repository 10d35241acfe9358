import{F as t}from"./chunk-OAVJCO6F.js";var s=new Set;async function l(){let i=await t("GET","/resource/abilities");s=new Set(i.calls)}var o=i=>s.has(i);export{l as a,o as b};
