import{g as s,h as t}from"./chunk-O3LLXUNT.js";var d=(o,r)=>t(o,r),e=(o,r)=>s(`${o}.${r}`)?t(`${o}.${r}`):r;export{d as a,e as b};
