function score_folders(maps, masks, outfile)
% One line a picture: name, MAE, adaptive F, weighted F, S, E, 256 precisions, 256 recalls (index 0: threshold 255), as
% the loop of F3Net's eval/main.m does. Its functions are on the path; where they fail on a picture the line holds NaN.
names = dir([maps '/*.png']); names = {names.name}';
f = fopen(outfile, 'w');
for k = 1:numel(names)
  fg = imread([maps '/' names{k}]); gt = imread([masks '/' names{k}]);
  fg = mat2gray(fg); gt = mat2gray(gt);
  s = zeros(1, 5); p = zeros(256, 1); r = p;
  if max(fg(:)) ~= 0 && max(gt(:)) ~= 0
    gt = gt >= 0.5;
    [a, b, fm] = Fmeasure(fg, gt, size(gt));
    s = [MAE(fg, gt), fm, wFmeasure(fg, gt), NaN, Emeasure(fg, gt)];
    try, s(4) = Smeasure(fg, gt); catch, end
    try, [p, r] = PRCurve(fg * 255, gt); catch, p = NaN(256, 1); r = p; end
  end
  fprintf(f, '%s', names{k}); fprintf(f, ',%.17g', s, p(:), r(:)); fprintf(f, '\n');
end
fclose(f);
end
