function score_saleval(maps, masks, outfile)
% As score_folders, with the functions of sal_eval_toolbox; S and weighted F are F3Net's, S clamped as StructureMeasure.
names = dir([maps '/*.png']); names = {names.name}';
f = fopen(outfile, 'w');
for k = 1:numel(names)
  gt = im2double(imread([masks '/' names{k}])) >= 0.1;
  map = im2double(imread([maps '/' names{k}]));
  top = max(map(:));
  if top > 0, map = map ./ top; end
  s = NaN(1, 5); p = NaN(256, 1); r = p;
  s(1) = CalMAE(map, gt);
  three = Fmeasure_calu(map, gt, size(gt)); s(2) = three(3);
  s(3) = wFmeasure(map, gt);
  try, s(4) = Smeasure(map, gt); if s(4) < 0, s(4) = 0; end, catch, end
  s(5) = Emeasure_calu(map, gt);
  try
    edges = fliplr([255:-1:0] / 255);
    hits = cumsum(flipud(histc(map(gt), edges))); false = cumsum(flipud(histc(map(~gt), edges)));
    p = hits ./ (hits + false); p(isnan(p)) = 0; r = hits / sum(gt(:));
  catch
  end
  fprintf(f, '%s', names{k}); fprintf(f, ',%.17g', s, p(:), r(:)); fprintf(f, '\n');
end
fclose(f);
end
